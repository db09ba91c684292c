"""The real diffusers pipelines at tiny random size, text encoders included, built offline."""

from __future__ import annotations

import diffusers
import torch
import transformers
from tokenizers import pre_tokenizers

SIDE = 64


def seeded(make):
    """A module drawn from a fixed seed, without touching the caller's generator."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make().eval()


def scheduler(**changes):
    return diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="exponential", **changes)


def clip():
    byte_units = sorted(pre_tokenizers.ByteLevel.alphabet())
    units = [*byte_units, *(f"{u}</w>" for u in byte_units), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = transformers.CLIPTokenizer(vocab={u: i for i, u in enumerate(units)}, merges=[], model_max_length=77)
    config = transformers.CLIPTextConfig(
        vocab_size=len(units), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, projection_dim=16,
        bos_token_id=len(units) - 2, eos_token_id=len(units) - 1, pad_token_id=len(units) - 1,
    )  # fmt: skip
    return tokenizer, seeded(lambda: transformers.CLIPTextModel(config))


def t5():
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), ("▁", -2.0), *((c, -3.0) for c in "abcdefghijklmnopqrstuvwxyz")]
    tokenizer = transformers.T5Tokenizer(vocab=pieces, extra_ids=0)
    config = transformers.T5Config(vocab_size=len(pieces), d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    return tokenizer, seeded(lambda: transformers.T5EncoderModel(config))


def kontext(num_layers=1, num_heads=2):
    tokenizer, text_encoder = clip()
    tokenizer_2, text_encoder_2 = t5()
    transformer = seeded(lambda: diffusers.FluxTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=num_layers, num_single_layers=num_layers, attention_head_dim=16,
        num_attention_heads=num_heads, joint_attention_dim=16, pooled_projection_dim=16, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    ))  # fmt: skip
    vae = seeded(lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    return diffusers.FluxKontextPipeline(scheduler(), vae, text_encoder, tokenizer, text_encoder_2, tokenizer_2, transformer)


def qwen_transformer(**changes):
    return seeded(lambda: diffusers.QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
        axes_dims_rope=(4, 4, 8), **changes,
    ))  # fmt: skip


def qwen_vae():
    return seeded(lambda: diffusers.AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[1.2, 0.8, 1.0, 1.5],
    ))  # fmt: skip


def qwen(cls, **changes):
    qwen_scheduler = scheduler(max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02)
    return cls(qwen_scheduler, qwen_vae(), None, None, None, qwen_transformer(**changes))


def flux2_parts(guidance_embeds):
    transformer = seeded(lambda: diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), guidance_embeds=guidance_embeds,
    ))  # fmt: skip
    vae = seeded(lambda: diffusers.AutoencoderKLFlux2(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=4, norm_num_groups=4, use_quant_conv=False,
        use_post_quant_conv=False, down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    generator = torch.Generator().manual_seed(1)
    vae.bn.running_mean.copy_(torch.randn(vae.bn.running_mean.shape, generator=generator) * 0.1)
    vae.bn.running_var.copy_(torch.rand(vae.bn.running_var.shape, generator=generator) + 0.5)
    return scheduler(), vae, None, None, transformer


def klein(is_distilled=False):
    return diffusers.Flux2KleinPipeline(*flux2_parts(guidance_embeds=False), is_distilled=is_distilled)


def flux2():
    return diffusers.Flux2Pipeline(*flux2_parts(guidance_embeds=True))


class VisionProcessor:
    """Stands in for a vision-language processor where a pipeline only asks for its parts."""

    image_processor = None

    class tokenizer:  # noqa: N801  (an attribute)
        @staticmethod
        def encode(text):
            return [0]

    def apply_chat_template(self, messages, **_):
        return [[0, 0]]


def longcat():
    transformer = seeded(lambda: diffusers.LongCatImageTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2, joint_attention_dim=16,
        pooled_projection_dim=16, axes_dims_rope=[4, 4, 8],
    ))  # fmt: skip
    vae = seeded(lambda: diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), layers_per_block=1, latent_channels=16, norm_num_groups=4, use_quant_conv=False,
        use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5, down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
    ))  # fmt: skip
    return diffusers.LongCatImageEditPipeline(scheduler(), vae, None, None, VisionProcessor(), transformer)


def qwen_image_2_1():
    transformer = seeded(lambda: diffusers.QwenImage21Transformer2DModel(
        in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2, context_in_dim=16,
        axes_dims_rope=(4, 4, 8),
    ))  # fmt: skip
    vae = seeded(lambda: diffusers.AutoencoderKLQwenImage21(
        base_dim=4, decoder_base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.2, 0.8, 1.0, 1.5],
    ))  # fmt: skip
    return diffusers.QwenImage21Pipeline(scheduler(), vae, None, VisionProcessor(), transformer)
