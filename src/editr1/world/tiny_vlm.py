"""The embedded verifier: transformers' Qwen2.5-VL with its processor at 2.4 million parameters, the stand-in for Qwen2.5-VL.

It reads two 72 x 72 pictures, 24 x 24 pixels a patch and no merging: one visual token a cell. Its tokenizer knows the words of
the embedded world and nothing else; text decodes to exactly the characters that were encoded.
"""

from __future__ import annotations

from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)

from editr1.world.scene import BACKGROUNDS, CELL, CELLS, COLOURS, GRID, LETTERS, MATERIALS, SHAPES, SIZE, STYLES, TONES

WEIGHTS = Path(__file__).parent / "weights" / "verifier"

SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    "<|unk|>",
)
_BARE = ("\n", "user", "assistant", "edit", ":", "?", ",", "<score>", "</score>")
_LABELS = tuple(f"{letter}{number}" for letter, most in (("F", 6), ("K", 9), ("Q", 3)) for number in range(1, most + 1))
_FUNCTION_TEXT = (
    "change the background to redraw scene in style give a tone add at remove move replace with letter make and then "
    "Is Are only objects image clean free of border empty nowhere want yes no unclear none white "
    "noisy blurred smeared quality before after"
)
_WORDS = tuple(
    dict.fromkeys((*_FUNCTION_TEXT.split(), *CELLS, *COLOURS, *SHAPES, *LETTERS, *MATERIALS, *BACKGROUNDS, *TONES, *STYLES, "->"))
)
_SCORE_PARTS = (*(str(whole) for whole in range(11)), *(f".{tenth}" for tenth in range(10)))
VOCABULARY: tuple[str, ...] = (*SPECIAL, *_BARE, *_LABELS, *(f" {word}" for word in _WORDS), *_SCORE_PARTS)

# A piece is a score tag, a line end, a tenth, a mark, an arrow, a number, or a word with the blank before it.
_PIECE = r"</?score>|\n|\.\d|[?:,]| ->|\d+| ?[A-Za-z]+(?:-[a-z]+)?\d?"

CHAT_TEMPLATE = (
    "{%- for message in messages -%}<|im_start|>{{ message['role'] }}\n"
    "{%- if message['content'] is string -%}{{ '\n' + message['content'] }}{%- else -%}{{ '\n' }}"
    "{%- for part in message['content'] -%}"
    "{%- if part['type'] == 'image' -%}<|vision_start|><|image_pad|><|vision_end|>{%- else -%}{{ part['text'] }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}<|im_end|>{{ '\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|im_start|>assistant{{ '\n' }}{%- endif -%}"
)


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Word-level, lossless on the embedded world's texts."""
    tokenizer = Tokenizer(models.WordLevel({token: index for index, token in enumerate(VOCABULARY)}, unk_token="<|unk|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<|unk|>",
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        additional_special_tokens=[token for token in SPECIAL if token not in ("<|unk|>", "<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
        model_max_length=1024,
        padding_side="left",  # a decoder continues at the right end of every row of a batch
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def new_processor() -> Qwen2_5_VLProcessor:
    """The real processor class, set to 72 x 72 pictures of 3 x 3 patches."""
    sizes = {"shortest_edge": SIZE * SIZE, "longest_edge": SIZE * SIZE}
    common = {"patch_size": CELL, "merge_size": 1, "temporal_patch_size": 2, "size": sizes}
    return Qwen2_5_VLProcessor(
        image_processor=Qwen2VLImageProcessor(**common),
        tokenizer=new_tokenizer(),
        video_processor=Qwen2VLVideoProcessor(**common),
        chat_template=CHAT_TEMPLATE,
    )


def new_model(
    text_width: int = 128, text_layers: int = 4, vision_width: int = 192, vision_layers: int = 2
) -> Qwen2_5_VLForConditionalGeneration:
    """The architecture with fresh weights (from torch's global generator; callers seed it)."""
    index = {token: number for number, token in enumerate(VOCABULARY)}
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": len(VOCABULARY),
            "hidden_size": text_width,
            "intermediate_size": 3 * text_width,
            "num_hidden_layers": text_layers,
            "num_attention_heads": text_width // 32,
            "num_key_value_heads": text_width // 32,
            "max_position_embeddings": 1024,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 6, 6]},
            "initializer_range": 0.06,
            "bos_token_id": index["<|endoftext|>"],
            "eos_token_id": index["<|im_end|>"],
            "pad_token_id": index["<|endoftext|>"],
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_width,
            "intermediate_size": 512,
            "num_heads": vision_width // 32,
            "out_hidden_size": text_width,
            "patch_size": CELL,
            "spatial_merge_size": 1,
            "temporal_patch_size": 2,
            "window_size": SIZE,
            "fullatt_block_indexes": list(range(vision_layers)),
            "initializer_range": 0.06,
        },
        image_token_id=index["<|image_pad|>"],
        video_token_id=index["<|video_pad|>"],
        vision_start_token_id=index["<|vision_start|>"],
        vision_end_token_id=index["<|vision_end|>"],
        tie_word_embeddings=False,
    )
    model = Qwen2_5_VLForConditionalGeneration(config)
    model.generation_config.eos_token_id = index["<|im_end|>"]
    model.generation_config.pad_token_id = index["<|endoftext|>"]
    return model


NUM_IMAGE_TOKENS = GRID * GRID
