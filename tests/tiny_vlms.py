"""Tiny random models of other real families: Qwen3-VL (shares the decoding of the Qwen line) and LLaVA (goes through `generate`)."""

from __future__ import annotations

from typing import Any

from tiny_qwen import CHAT_TEMPLATE

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny_qwen3_vl(tokenizer: Any) -> tuple[Any, Any]:
    """(model, processor) of Qwen3-VL around the byte tokenizer of `tiny_qwen`."""
    from transformers import (
        Qwen2VLImageProcessor,
        Qwen3VLConfig,
        Qwen3VLForConditionalGeneration,
        Qwen3VLProcessor,
        Qwen3VLVideoProcessor,
    )

    pixels = {"patch_size": 16, "merge_size": 2, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    processor = Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
    config = Qwen3VLConfig(
        text_config={**_text(tokenizer), "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": rope},
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 2,
            "out_hidden_size": 32,
            "patch_size": 16,
            "spatial_merge_size": 2,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
            "initializer_range": 0.1,
        },
        tie_word_embeddings=False,
        **{field: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for field, name in names.items()},
    )
    return _initialised(Qwen3VLForConditionalGeneration, config, tokenizer), processor


def tiny_llava(tokenizer: Any) -> tuple[Any, Any]:
    """(model, processor) of LLaVA around the byte tokenizer of `tiny_qwen`, to which <image> is added."""
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]}, replace_extra_special_tokens=False)
    size = {"height": 28, "width": 28}
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessor(size=size, crop_size=size),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        chat_template=LLAVA_TEMPLATE,
        num_additional_image_tokens=1,
    )
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14
    )
    text = LlamaConfig(**_text(tokenizer), num_hidden_layers=2, num_key_value_heads=2)
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"))
    return _initialised(LlavaForConditionalGeneration, config, tokenizer), processor


def _text(tokenizer: Any) -> dict[str, Any]:
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_attention_heads": 2,
        "max_position_embeddings": 4096,
        "initializer_range": 0.4,
        "tie_word_embeddings": False,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _initialised(cls: Any, config: Any, tokenizer: Any) -> Any:
    import torch

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = cls(config).eval()
    model.generation_config.update(eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id)
    return model
