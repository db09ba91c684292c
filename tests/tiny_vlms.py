"""Tiny random models of other real families around the byte tokenizer of `tiny_qwen`; each gives (model, processor).

Qwen3-VL and GLM-4.6V share prompts like Qwen2.5-VL, Qwen3.5 (three layers of linear attention) by copies of what it keeps; LLaVA, InternVL
and Gemma 4 (windows) go through `generate`.
"""

from __future__ import annotations

from typing import Any

from tiny_qwen import CHAT_TEMPLATE

LLAVA_TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}{% endfor %}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}"
)


def tiny_qwen3_vl(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    text = {**_text(tokenizer), "num_hidden_layers": 3, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": _ROPE}
    vision = {**_VISION, "num_position_embeddings": 64, "deepstack_visual_indexes": [0, 1], "initializer_range": 0.1, "depth": 3}
    config = Qwen3VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **_qwen_ids(tokenizer))
    return _initialised(Qwen3VLForConditionalGeneration, config, tokenizer), _qwen3_processor(tokenizer)


def tiny_qwen35(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import Qwen3_5Config, Qwen3_5ForConditionalGeneration

    linear = {f"linear_{part}_head_dim": 16 for part in ("key", "value")} | {f"linear_num_{part}_heads": 2 for part in ("key", "value")}
    rope = {**_ROPE, "partial_rotary_factor": 1.0}
    text = {**_text(tokenizer), **linear, "num_hidden_layers": 4, "num_key_value_heads": 1, "head_dim": 16, "rope_parameters": rope}
    vision = {**_VISION, "num_position_embeddings": 64}
    config = Qwen3_5Config(text_config=text, vision_config=vision, tie_word_embeddings=False, **_qwen_ids(tokenizer))
    return _initialised(Qwen3_5ForConditionalGeneration, config, tokenizer), _qwen3_processor(tokenizer)


def tiny_glm46v(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import (
        Glm46VConfig,
        Glm46VForConditionalGeneration,
        Glm46VImageProcessor,
        Glm46VProcessor,
        Glm46VVideoProcessor,
    )

    names = ("image", "video", "begin_of_image", "end_of_image", "begin_of_video", "end_of_video")
    ids = _add_tokens(tokenizer, [f"<|{name}|>" for name in names])
    pixels = {"patch_size": 16, "merge_size": 2, "size": {"shortest_edge": 32 * 32, "longest_edge": 64 * 64 * 2}}
    processor = Glm46VProcessor(
        image_processor=Glm46VImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Glm46VVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|begin_of_image|><|image|><|end_of_image|>"),
    )
    rope = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3], "partial_rotary_factor": 1.0}
    text = {**_text(tokenizer), "num_hidden_layers": 2, "num_key_value_heads": 1, "rope_parameters": rope}
    vision = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32, "patch_size": 16}
    places = {"image_token_id": ids[0], "video_token_id": ids[1], "image_start_token_id": ids[2], "image_end_token_id": ids[3]}
    places |= {"video_start_token_id": ids[4], "video_end_token_id": ids[5]}
    config = Glm46VConfig(text_config=text, vision_config={**vision, "image_size": 64}, **places)
    return _initialised(Glm46VForConditionalGeneration, config, tokenizer), processor


def tiny_internvl(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import (
        GotOcr2ImageProcessor,
        InternVLConfig,
        InternVLForConditionalGeneration,
        InternVLProcessor,
        InternVLVideoProcessor,
    )

    names = {"start_image_token": "<img>", "end_image_token": "</img>", "context_image_token": "<IMG_CONTEXT>", "video_token": "<video>"}
    ids = dict(zip(names, _add_tokens(tokenizer, list(names.values())), strict=True))
    for name, token in names.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", ids[name])
    processor = InternVLProcessor(
        image_processor=GotOcr2ImageProcessor(size={"height": 28, "width": 28}, min_patches=1, max_patches=2),
        tokenizer=tokenizer,
        video_processor=InternVLVideoProcessor(),
        image_seq_length=1,
        chat_template=CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<IMG_CONTEXT>"),
    )
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": [28, 28]}
    text = {**_text(tokenizer), "model_type": "qwen2", "num_hidden_layers": 2, "num_key_value_heads": 1}
    config = InternVLConfig(
        vision_config={**vision, "patch_size": [14, 14]}, text_config=text, image_token_id=ids["context_image_token"], image_seq_length=1
    )
    return _initialised(InternVLForConditionalGeneration, config, tokenizer), processor


def tiny_gemma4(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import (
        Gemma4AudioFeatureExtractor,
        Gemma4Config,
        Gemma4ForConditionalGeneration,
        Gemma4ImageProcessor,
        Gemma4Processor,
        Gemma4VideoProcessor,
    )

    names = {"image_token": "<|image|>", "boi_token": "<|image>", "eoi_token": "<image|>"}
    names |= {"audio_token": "<|audio|>", "boa_token": "<|audio>", "eoa_token": "<audio|>"}
    ids = dict(zip(names, _add_tokens(tokenizer, [*names.values(), "<|video|>"]), strict=False))
    for name, token in names.items():
        setattr(tokenizer, name, token)
        setattr(tokenizer, f"{name}_id", ids[name])
    pixels = {"patch_size": 16, "pooling_kernel_size": 3, "max_soft_tokens": 70}
    processor = Gemma4Processor(
        feature_extractor=Gemma4AudioFeatureExtractor(),
        image_processor=Gemma4ImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Gemma4VideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE.replace("<|vision_start|><|image_pad|><|vision_end|>", "<|image|>"),
    )
    windows = ["sliding_attention", "full_attention"]
    text = {**_text(tokenizer), "num_hidden_layers": 2, "num_key_value_heads": 1, "head_dim": 16, "global_head_dim": 16}
    text |= {"layer_types": windows, "sliding_window": 16, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": len(tokenizer)}
    vision = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 2}
    vision |= {"head_dim": 16, "patch_size": 16, "pooling_kernel_size": 3}
    places = {"image_token_id": ids["image_token"], "boi_token_id": ids["boi_token"], "eoi_token_id": ids["eoi_token"]}
    places |= {"audio_token_id": ids["audio_token"], "boa_token_id": ids["boa_token"], "eoa_token_index": ids["eoa_token"]}
    config = Gemma4Config(text_config=text, vision_config=vision, audio_config=None, **places)
    return _initialised(Gemma4ForConditionalGeneration, config, tokenizer), processor


def tiny_llava(tokenizer: Any) -> tuple[Any, Any]:
    from transformers import CLIPImageProcessor, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor

    _add_tokens(tokenizer, ["<image>"])
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


_ROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3], "mrope_interleaved": True}
_VISION = {"depth": 2, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 32} | {
    "patch_size": 16,
    "spatial_merge_size": 2,
}


def _qwen_ids(tokenizer: Any) -> dict[str, int]:
    names = {"image_token_id": "image_pad", "video_token_id": "video_pad"}
    names |= {"vision_start_token_id": "vision_start", "vision_end_token_id": "vision_end"}
    return {field: tokenizer.convert_tokens_to_ids(f"<|{name}|>") for field, name in names.items()}


def _qwen3_processor(tokenizer: Any) -> Any:
    from transformers import Qwen2VLImageProcessor, Qwen3VLProcessor, Qwen3VLVideoProcessor

    pixels = {"patch_size": 16, "merge_size": 2, "min_pixels": 32 * 32, "max_pixels": 64 * 64}
    return Qwen3VLProcessor(
        image_processor=Qwen2VLImageProcessor(**pixels),
        tokenizer=tokenizer,
        video_processor=Qwen3VLVideoProcessor(**pixels),
        chat_template=CHAT_TEMPLATE,
    )


def _add_tokens(tokenizer: Any, tokens: list[str]) -> list[int]:
    tokenizer.add_special_tokens({"additional_special_tokens": tokens}, replace_extra_special_tokens=False)
    return [tokenizer.convert_tokens_to_ids(token) for token in tokens]


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
