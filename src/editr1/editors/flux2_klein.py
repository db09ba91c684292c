"""FLUX.2-klein as a trainable editor, on diffusers' Flux2KleinPipeline parts.

Latents are patchified before they are normalised (by the VAE's batch-norm statistics), one token a 16-pixel square; the source
stands at time coordinate 10. The base models use true guidance, distilled ones none. Legend: see `_dit`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image

from editr1.editors._dit import (
    PIXELS_PER_TOKEN,
    WithEncoders,
    collate_rows,
    condition_size,
    expand_rows,
    load_pipeline,
    make_plan,
    prepare_pipeline,
    scheduler_sigmas,
    seeded_noise,
    to_pictures,
)
from editr1.editors.base import Conditioning, Footprint, Plan, sigma_rows
from editr1.errors import ConfigError
from editr1.objectives.schedule import flux2_mu, flux2_schedule

CHANNELS = 128  # 32 VAE channels x 2 x 2 packing
NUM_PARAMETERS = 3.9e9  # klein 4B
_SIZES = (25, 3072, 4.0e9, 0.08e9)  # blocks, width, Qwen3-4B, VAE
MAX_TEXT_TOKENS = 512
SOURCE_TIME = 10  # time coordinate of the first source picture; the target's is 0
TEXT_LAYERS = (9, 18, 27)  # hidden states of the Qwen3 encoder that klein reads


class KleinEditor(WithEncoders):
    """A FlowEditor over a Flux2KleinPipeline."""

    name = "flux2_klein"

    def __init__(self, pipe: Any, guidance: float, condition_area: int | None, text_tokens: int, text_layers: tuple[int, ...]) -> None:
        if guidance > 1.0 and pipe.config.is_distilled:
            raise ConfigError("this klein checkpoint is distilled and ignores guidance: set the editor's guidance to 1")
        self.pipe = pipe
        self.transformer: torch.nn.Module = pipe.transformer
        self.config = pipe.transformer.config
        self.guidance, self.condition_area = guidance, condition_area
        self.text_tokens, self.text_layers = text_tokens, text_layers
        self.multiple = pipe.vae_scale_factor * 2

    @property
    def device(self) -> torch.device:
        return self.pipe.device

    def lora_targets(self) -> list[str]:
        """Attention of both block types; the single blocks fuse attention and feed-forward into two layers.

        Their output is named in full: `attn.to_out` alone would also match the double blocks' module list.
        """
        double = ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "to_qkv_mlp_proj"]
        single = [f"single_transformer_blocks.{index}.attn.to_out" for index in range(self.config.num_single_layers)]
        return [f"attn.{name}" for name in double] + single

    def plan(self, height: int, width: int) -> Plan:
        return make_plan(height, width, self.config.in_channels, self.multiple)

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        return scheduler_sigmas(self.pipe.scheduler, num_steps, flux2_mu(plan.num_tokens, num_steps))

    @torch.no_grad()
    def encode(self, sources: Sequence[Image.Image], instructions: Sequence[str], plan: Plan) -> Conditioning:
        self.check_encoders()
        height, width = condition_size(plan, self.condition_area, self.multiple)
        cond: Conditioning = {
            "prompt": self._encode_text(list(instructions)),
            "source": torch.cat([self._encode_source(s, height, width) for s in sources]),
            "source_grid": (height // self.multiple, width // self.multiple),
            "grid": self._grid(plan),
        }
        if self.guidance > 1.0:
            cond["negative_prompt"] = self._encode_text([""] * len(instructions))
        return cond

    def _encode_text(self, texts: list[str]) -> torch.Tensor:
        """[B, T, E]; padded to `text_tokens`, padding is part of what the model was trained on."""
        return self.pipe.encode_prompt(
            prompt=texts, device=self.device, max_sequence_length=self.text_tokens, text_encoder_out_layers=self.text_layers
        )[0]

    def _encode_source(self, source: Image.Image, height: int, width: int) -> torch.Tensor:
        """[1, M, D]."""
        pixels = self.pipe.image_processor.preprocess(source.resize((width, height), Image.Resampling.LANCZOS), height=height, width=width)
        return self.pipe.prepare_image_latents([pixels], 1, None, self.device, self.pipe.vae.dtype)[0]

    @torch.no_grad()
    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        return torch.cat([self._encode_source(image, plan.height, plan.width) for image in images]).float()

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        return expand_rows(cond, copies)

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        return collate_rows(conds, {})

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        return seeded_noise(plan, seeds, self.device)

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        v = self._forward(x_BLD, sigma, cond, "prompt")
        if self.guidance > 1.0:
            v_negative = self._forward(x_BLD, sigma, cond, "negative_prompt")
            v = v_negative + self.guidance * (v - v_negative)
        return v

    def _forward(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning, text: str) -> torch.Tensor:
        dtype, rows = self.transformer.dtype, x_BLD.shape[0]
        prompt_BTE = cond[text]
        (rows_out, columns_out), (rows_in, columns_in) = cond["grid"], cond["source_grid"]
        image_ids = torch.cat([_ids(0, rows_out, columns_out, 1), _ids(SOURCE_TIME, rows_in, columns_in, 1)])
        text_ids = _ids(0, 1, 1, prompt_BTE.shape[1])
        out = self.transformer(
            hidden_states=torch.cat([x_BLD.to(dtype), cond["source"].to(dtype)], dim=1),
            timestep=sigma_rows(sigma, x_BLD).to(dtype),
            guidance=None,
            encoder_hidden_states=prompt_BTE.to(dtype),
            txt_ids=text_ids.to(x_BLD.device).expand(rows, -1, -1),
            img_ids=image_ids.to(x_BLD.device).expand(rows, -1, -1),
            return_dict=False,
        )[0]
        return out[:, : x_BLD.shape[1]].float()

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """What the VAE decodes, [B, C, H, W]: de-normalised first, then unpatchified."""
        rows, columns = self._grid(plan)
        norm = self.pipe.vae.bn
        std = (norm.running_var + self.pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1).float()
        latents = x_BLD.view(-1, rows, columns, plan.channels).permute(0, 3, 1, 2) * std + norm.running_mean.view(1, -1, 1, 1).float()
        latents = latents.reshape(-1, plan.channels // 4, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return latents.reshape(-1, plan.channels // 4, rows * 2, columns * 2)

    @torch.no_grad()
    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        pixels = self.pipe.vae.decode(self.vae_latents(x_BLD, plan).to(self.pipe.vae.dtype), return_dict=False)[0]
        return to_pictures(pixels, self.name)

    def _grid(self, plan: Plan) -> tuple[int, int]:
        return plan.height // self.multiple, plan.width // self.multiple


def _ids(time: int, rows: int, columns: int, length: int) -> torch.Tensor:
    """Positions (time, row, column, place in the text), [rows * columns * length, 4]."""
    return torch.cartesian_prod(torch.tensor([time]), torch.arange(rows), torch.arange(columns), torch.arange(length))


def build(
    path: str = "black-forest-labs/FLUX.2-klein-base-4B", dtype: str = "bfloat16", device: str | None = None, guidance: float = 1.0,
    condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS, encoders: bool = True,
) -> KleinEditor:  # fmt: skip
    """The editor from a local folder or the hub.

    Args:
        path: a Flux2KleinPipeline.
        dtype: of the frozen weights.
        device: None = this process' accelerator.
        guidance: classifier-free guidance of the base models; 1 = off, one forward a velocity. ours: off while training.
        condition_area: square pixels of the encoded source; None = the target's size.
        text_tokens: length to which texts are padded.
        encoders: False leaves the text encoders on disk; such an editor cannot encode (edit_rl.cache_encodings sets it).
    """
    from diffusers import Flux2KleinPipeline

    editor = from_pipeline(load_pipeline(Flux2KleinPipeline, path, dtype, device, encoders), guidance, condition_area, text_tokens)
    editor.encoders = encoders
    return editor


def from_pipeline(
    pipe: Any, guidance: float = 1.0, condition_area: int | None = None, text_tokens: int = MAX_TEXT_TOKENS,
    text_layers: tuple[int, ...] = TEXT_LAYERS,
) -> KleinEditor:  # fmt: skip
    """The editor around a pipeline in memory, which is frozen."""
    return KleinEditor(prepare_pipeline(pipe, str(pipe.device)), guidance, condition_area, text_tokens, text_layers)


def footprint(height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
    """Sizes and cost without weights (of the 4-billion-parameter checkpoint)."""
    plan = make_plan(height, width, CHANNELS, PIXELS_PER_TOKEN)
    rows, columns = (size // PIXELS_PER_TOKEN for size in condition_size(plan, options.get("condition_area"), PIXELS_PER_TOKEN))
    forwards = 2 if options.get("guidance", 1.0) > 1.0 else 1
    text = options.get("text_tokens", MAX_TEXT_TOKENS)
    return Footprint(plan, rows * columns, text, forwards, NUM_PARAMETERS, flux2_schedule(num_steps, plan.num_tokens).sigmas, *_SIZES)
