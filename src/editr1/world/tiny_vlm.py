"""The embedded verifier: transformers' Qwen2.5-VL with its processor at 2.4 million parameters, the stand-in for Qwen2.5-VL.

It reads two 72 x 72 pictures, 24 x 24 pixels a patch and no merging: one visual token a cell. Its tokenizer knows the words of
the embedded world and nothing else; text decodes to exactly the characters that were encoded. Sizes, words and chat template are
those of the files in `WEIGHTS`, which state them once.
"""

from __future__ import annotations

from pathlib import Path

from transformers import PreTrainedTokenizerFast, Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration, Qwen2_5_VLProcessor

WEIGHTS = Path(__file__).parent / "weights" / "verifier"
CHAT_TEMPLATE = (WEIGHTS / "chat_template.jinja").read_text(encoding="utf-8")


def new_processor() -> Qwen2_5_VLProcessor:
    """The real processor class, set to 72 x 72 pictures of 3 x 3 patches."""
    return Qwen2_5_VLProcessor.from_pretrained(WEIGHTS)


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, lossless on the embedded world's texts; pads on the left, where a decoder does not continue."""
    return PreTrainedTokenizerFast.from_pretrained(WEIGHTS)


VOCABULARY: tuple[str, ...] = tuple(new_tokenizer().convert_ids_to_tokens(range(len(new_tokenizer()))))
SPECIAL = VOCABULARY[:8]


def new_model(
    text_width: int = 128, text_layers: int = 4, vision_width: int = 192, vision_layers: int = 2
) -> Qwen2_5_VLForConditionalGeneration:
    """The architecture with fresh weights (from torch's global generator; callers seed it), heads 32 wide."""
    sizes = Qwen2_5_VLConfig.from_pretrained(WEIGHTS).to_dict()
    sizes["text_config"] |= {
        "hidden_size": text_width, "intermediate_size": 3 * text_width, "num_hidden_layers": text_layers,
        "num_attention_heads": text_width // 32, "num_key_value_heads": text_width // 32,
        "layer_types": ["full_attention"] * text_layers,
    }  # fmt: skip
    sizes["vision_config"] |= {
        "depth": vision_layers, "hidden_size": vision_width, "num_heads": vision_width // 32, "out_hidden_size": text_width,
        "fullatt_block_indexes": list(range(vision_layers)),
    }  # fmt: skip
    model = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig.from_dict(sizes))
    model.generation_config.eos_token_id = model.config.text_config.eos_token_id
    model.generation_config.pad_token_id = model.config.text_config.pad_token_id
    return model
