"""Real models at real size (or tiny), with random weights drawn on the device itself: no network, no checkpoint, seconds to build."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

import editr1  # noqa: F401  (its torchvision hook must come before diffusers)

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "editors"))


def drawn(make: Callable[[], Any], device: torch.device, dtype: torch.dtype) -> Any:
    """The module built on the device in its dtype, frozen."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with device:
            module = make()
    finally:
        torch.set_default_dtype(before)
    return module.to(dtype).eval().requires_grad_(False)


def words(text: str, length: int, width: int, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """States [1, T, E] that depend on the text: stand in for text encoders of 8 to 15 GB, whose cost is paid once a task."""
    seed = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16)
    return torch.randn(1, length, width, generator=torch.Generator().manual_seed(seed)).to(device, dtype)


def kontext(device: torch.device, tiny: bool) -> Any:
    """FLUX.1-Kontext, 11.9 billion parameters, with T5-XXL and CLIP."""
    import diffusers
    import tiny_pipelines
    import transformers

    from editr1.editors import kontext as adapter

    if tiny:
        return adapter.KontextEditor(tiny_pipelines.kontext(num_layers=2).to(device), text_tokens=16)
    half = torch.bfloat16
    tokenizer, tokenizer_2 = tiny_pipelines.clip()[0], tiny_pipelines.t5()[0]
    ends = {name: getattr(tokenizer, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    clip = transformers.CLIPTextConfig(
        vocab_size=49408, hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12, projection_dim=768, **ends
    )
    t5 = transformers.T5Config(
        vocab_size=32128, d_model=4096, d_kv=64, d_ff=10240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    vae = drawn(
        lambda: diffusers.AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=16, norm_num_groups=32, use_quant_conv=False,
            use_post_quant_conv=False, shift_factor=0.1159, scaling_factor=0.3611, down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        ), device, half,
    )  # fmt: skip
    pipe = diffusers.FluxKontextPipeline(
        tiny_pipelines.scheduler(), vae, drawn(lambda: transformers.CLIPTextModel(clip), device, half), tokenizer,
        drawn(lambda: transformers.T5EncoderModel(t5), device, half), tokenizer_2, flux(device),
    )  # fmt: skip
    return adapter.KontextEditor(pipe, text_tokens=256)


def flux(device: torch.device, num_layers: int = 19, num_single_layers: int = 38) -> Any:
    """The transformer of FLUX.1-Kontext, or fewer of its blocks."""
    import diffusers

    return drawn(
        lambda: diffusers.FluxTransformer2DModel(
            patch_size=1, in_channels=64, num_layers=num_layers, num_single_layers=num_single_layers, attention_head_dim=128,
            num_attention_heads=24, joint_attention_dim=4096, pooled_projection_dim=768, guidance_embeds=True, axes_dims_rope=(16, 56, 56),
        ), device, torch.bfloat16,
    )  # fmt: skip


def qwen(device: torch.device, tiny: bool) -> Any:
    """Qwen-Image-Edit, 20.4 billion parameters; states of its text encoder are random."""
    import diffusers
    import tiny_pipelines

    from editr1.editors import qwen_edit as adapter

    if tiny:
        pipe = tiny_pipelines.qwen(diffusers.QwenImageEditPipeline).to(device)
    else:
        transformer = drawn(
            lambda: diffusers.QwenImageTransformer2DModel(
                patch_size=2, in_channels=64, out_channels=16, num_layers=60, attention_head_dim=128, num_attention_heads=24,
                joint_attention_dim=3584, axes_dims_rope=(16, 56, 56),
            ), device, torch.bfloat16,
        )  # fmt: skip
        vae = drawn(
            lambda: diffusers.AutoencoderKLQwenImage(
                base_dim=96, z_dim=16, dim_mult=[1, 2, 4, 4], num_res_blocks=2, temperal_downsample=[False, True, True],
                latents_mean=[0.0] * 16, latents_std=[1.0] * 16,
            ), device, torch.bfloat16,
        )  # fmt: skip
        schedule = tiny_pipelines.scheduler(max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
        pipe = diffusers.QwenImageEditPipeline(schedule, vae, None, None, None, transformer)
    editor = adapter.QwenEditEditor(pipe)
    width, dtype = pipe.transformer.config.joint_attention_dim, pipe.transformer.dtype
    length = 8 if tiny else 320
    editor._encode_text = lambda text, pictures, encoded: {"prompt": words(text, length + len(text) % 4, width, device, dtype)}
    return editor


def klein(device: torch.device, tiny: bool) -> Any:
    """FLUX.2-klein 4B; states of its text encoder are random, as with `cache_encodings`."""
    import diffusers
    import tiny_pipelines

    from editr1.editors import flux2_klein as adapter

    if tiny:
        pipe = tiny_pipelines.klein().to(device)
    else:
        transformer = drawn(
            lambda: diffusers.Flux2Transformer2DModel(
                patch_size=1, in_channels=128, num_layers=5, num_single_layers=20, attention_head_dim=128, num_attention_heads=24,
                joint_attention_dim=7680, timestep_guidance_channels=256, axes_dims_rope=(32, 32, 32, 32), guidance_embeds=False,
            ), device, torch.bfloat16,
        )  # fmt: skip
        vae = drawn(lambda: diffusers.AutoencoderKLFlux2(), device, torch.bfloat16)
        pipe = diffusers.Flux2KleinPipeline(tiny_pipelines.scheduler(), vae, None, None, transformer, is_distilled=False)
    length, dtype = (6 if tiny else 256), pipe.transformer.dtype
    editor = adapter.KleinEditor(pipe, text_tokens=length)
    width = pipe.transformer.config.joint_attention_dim
    editor._encode_text = lambda text, pictures, encoded: {"prompt": words(text, length, width, device, dtype)}
    return editor


# hidden, feed-forward, layers, heads, key-value heads, vocabulary, vision layers, vision hidden, vision feed-forward
_SIZES = {
    "7b": (3584, 18944, 28, 28, 4, 152064, 32, 1280, 3420),
    "3b": (2048, 11008, 36, 16, 2, 151936, 32, 1280, 3420),
    "tiny": (64, 128, 2, 4, 2, 512, 2, 64, 128),
}


def vlm(size: str, device: torch.device, dtype: torch.dtype) -> Any:
    """Qwen2.5-VL at a size, whose traces never end by themselves."""
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    from editr1.world.tiny_vlm import VOCABULARY

    hidden, ff, layers, heads, kv, vocabulary, depth, vision, vision_ff = _SIZES[size]
    token = {text: index for index, text in enumerate(VOCABULARY)}
    small = size == "tiny"
    config = Qwen2_5_VLConfig(
        text_config={
            "vocab_size": max(vocabulary, len(VOCABULARY)), "hidden_size": hidden, "intermediate_size": ff, "num_hidden_layers": layers,
            "num_attention_heads": heads, "num_key_value_heads": kv, "max_position_embeddings": 32768,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3] if small else [16, 24, 24]},
            "bos_token_id": token["<|endoftext|>"], "eos_token_id": token["<|im_end|>"], "pad_token_id": token["<|endoftext|>"],
        },
        vision_config={
            "depth": depth, "hidden_size": vision, "intermediate_size": vision_ff, "num_heads": 4 if small else 16,
            "out_hidden_size": hidden, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [1] if small else [7, 15, 23, 31],
        },
        image_token_id=token["<|image_pad|>"], video_token_id=token["<|video_pad|>"],
        vision_start_token_id=token["<|vision_start|>"], vision_end_token_id=token["<|vision_end|>"], tie_word_embeddings=False,
    )  # fmt: skip
    model = drawn(lambda: Qwen2_5_VLForConditionalGeneration(config), device, dtype).requires_grad_(True)
    model.generation_config.eos_token_id = token["<|im_end|>"]
    model.generation_config.pad_token_id = token["<|endoftext|>"]
    with torch.no_grad():  # words of the vocabulary compete far above the end token and what has no text
        model.lm_head.weight.mul_(4)
        model.lm_head.weight[token["<|im_end|>"]] = 0
        model.lm_head.weight[len(VOCABULARY) :] = 0
    return model


def processor() -> Any:
    """Qwen2.5-VL's picture processing with the embedded world's words."""
    from transformers import Qwen2_5_VLProcessor, Qwen2VLImageProcessor, Qwen2VLVideoProcessor

    from editr1.world.tiny_vlm import CHAT_TEMPLATE, new_tokenizer

    size = {"shortest_edge": 56 * 56, "longest_edge": 401408}
    pictures = Qwen2VLImageProcessor(patch_size=14, merge_size=2, temporal_patch_size=2, size=size)
    video = Qwen2VLVideoProcessor(patch_size=14, merge_size=2)
    return Qwen2_5_VLProcessor(image_processor=pictures, tokenizer=new_tokenizer(), video_processor=video, chat_template=CHAT_TEMPLATE)


def serve_from_memory(size: str, device: torch.device, folder: Path) -> Path:
    """A checkpoint folder without weights whose `from_pretrained` draws them on the device: spares 16 GB of disk twice."""
    import transformers

    def from_pretrained(path: Any, dtype: Any = torch.bfloat16, **_: Any) -> Any:
        model = vlm(size, device, dtype)
        model.config._name_or_path = str(path)
        return model

    processor().save_pretrained(folder)
    shell = vlm(size, torch.device("meta"), torch.bfloat16)
    shell.config.save_pretrained(folder)
    shell.generation_config.save_pretrained(folder)
    transformers.AutoModelForImageTextToText.from_pretrained = from_pretrained
    return folder
