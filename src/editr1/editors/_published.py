"""Published checkpoints: how they are loaded, what a run on them costs, and what models of one family share.

FLUX.2-dev and FLUX.2-klein: all but the text encoder and the kind of guidance. Latents are patchified before they are normalised (by the
VAE's batch-norm statistics), one token a 16-pixel square; the sources stand at the time coordinates 10, 20 and so on.

Qwen-Image-Edit and its Plus versions: all but the size at which the text encoder sees the sources. Latents are those of a video VAE with
one frame, so the VAE speaks [B, C, 1, H, W]. Legend: see `_dit`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, TypeVar

import torch
from PIL import Image
from torch.nn.functional import pad

from editr1.editors._dit import ATTENTION, TEXT_PARTS, DiT, Pictures, condition_size, frozen, scheduler_sigmas, snapped, unpack
from editr1.editors.base import Conditioning, Footprint, Plan
from editr1.errors import ConfigError
from editr1.objectives.schedule import Schedule, flux2_mu, qwen_schedule

MAX_TEXT_TOKENS = 512  # of FLUX.1 and FLUX.2
VISION_PIXELS = 28  # side of the square that Qwen2.5-VL turns into one token

T = TypeVar("T", bound=DiT)


def builder(editor: type[T], pipeline: str, path: str, **defaults: Any) -> Callable[..., T]:
    """The `build` of an adapter, `build(path, dtype, device, ..., encoders)`; the options between are the editor's own.

    Args:
        pipeline: name of diffusers' class.
        path: the default of `path`: a local folder or a hub name.
        defaults: of further options, where a published model is used otherwise than the editor around a pipeline.

    What the options of all trainable editors mean:
        dtype: of the frozen weights.
        device: None = this process' accelerator.
        encoders: False leaves the text encoders on disk; such an editor cannot encode (edit_rl.cache_encodings sets it).
        true_cfg: classifier-free guidance; 1 = off, one forward a velocity.
        negative: text of its second pass.
        condition_area: square pixels of an encoded source; None = the target's size (Qwen's and LongCat's pipelines take 1024 x 1024).
    """

    def load(path: str = path, dtype: str = "bfloat16", device: str | None = None, *, encoders: bool = True, **options: Any) -> T:
        import diffusers

        cls = getattr(diffusers, pipeline)
        # What is None, diffusers does not load.
        absent = {} if encoders else {name: None for name in TEXT_PARTS if name in inspect.signature(cls.__init__).parameters}
        made = editor(load_pipeline(cls, path, dtype, device, **absent), **{**defaults, **options})
        made.encoders = encoders
        return made

    (*first, encoders, _), (_, *own) = (list(inspect.signature(made).parameters.values()) for made in (load, editor))
    named = [o.replace(kind=inspect.Parameter.KEYWORD_ONLY, default=defaults.get(o.name, o.default)) for o in own]
    load.__signature__ = inspect.Signature([*first, *named, encoders])  # type: ignore[attr-defined]
    load.__module__ = editor.__module__  # whose `footprint` is the plan's
    return load


def load_pipeline(pipeline: Any, path: str, dtype: str, device: str | None, **parts: None) -> Any:
    """The pipeline with all weights in `dtype`, without gradient, on `device` (None = this process' own).

    Weights go to bf16 while they are read: kept in fp32 a frozen 12-billion-parameter transformer takes 48 GB.
    Raises ConfigError when `path` is neither a folder nor a name that the hub knows.
    """
    if not hasattr(torch, dtype):
        raise ConfigError(f"unknown dtype {dtype!r}, expected bfloat16, float16 or float32")
    try:
        pipe = pipeline.from_pretrained(path, torch_dtype=getattr(torch, dtype), **parts)
    except OSError as error:
        raise ConfigError(f"cannot load {pipeline.__name__} from {path!r}: {error}; give a local folder or a hub name") from error
    return frozen(pipe, device)


@dataclass(frozen=True)
class Published:
    """Sizes of a published checkpoint, for what a run will cost before a weight is loaded."""

    channels: int
    """D of a packed token."""
    num_parameters: float
    num_layers: int
    hidden: int
    num_encoder_parameters: float
    num_vae_parameters: float
    schedule: Callable[[int, int], Schedule]
    """Of a number of steps and of target tokens."""
    text: int = MAX_TEXT_TOKENS
    """The most tokens of the words; the option `text_tokens` of editors that have it says otherwise."""
    seen: Callable[[int], int] = lambda area: 0
    """Square pixels that the text encoder reads of the source, from those of the encoded one; it stands for them among the words."""
    cfg: tuple[str, float] = ("", 1.0)
    """The option that is classifier-free guidance, where there is one, and its default."""
    token: int = 16
    """Side of the square of pixels that a token stands for."""
    multiple: int = 16
    """What height and width snap to."""

    def footprint(self, height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
        """Sizes and cost without weights."""
        plan = snapped(height, width, self.channels, self.multiple, self.token)
        area = math.prod(condition_size(plan, options.get("condition_area"), self.multiple))
        words = options.get("text_tokens", self.text) + self.seen(area) // VISION_PIXELS**2
        return Footprint(
            plan, area // self.token**2, words, 2 if options.get(*self.cfg) > 1.0 else 1, self.num_parameters,
            self.schedule(num_steps, plan.num_tokens).sigmas, self.num_layers, self.hidden, self.num_encoder_parameters,
            self.num_vae_parameters,
        )  # fmt: skip


def positions(grids: Sequence[tuple[int, int]], apart: int = 1) -> torch.Tensor:
    """(time, row, column) of all tokens, [L + M, 3]: the target stands at time 0, the sources `apart` from one another."""
    parts = [torch.cartesian_prod(torch.tensor([apart * i]), torch.arange(h), torch.arange(w)) for i, (h, w) in enumerate(grids)]
    return torch.cat(parts)


# --- FLUX.2 ------------------------------------------------------------------------------------------

SOURCE_TIME = 10  # time coordinate of the first source picture, and from one to the next; the target's is 0


class Flux2(DiT):
    """The protocol; `guidance` is embedded, None where a model takes none."""

    max_sources = 10  # ours: the pipelines set no limit
    text_layers: ClassVar[tuple[int, ...]]
    """Hidden states of the text encoder that the model reads."""

    def __init__(self, pipe: Any, guidance: float | None, cfg: float, condition_area: int | None, text_tokens: int) -> None:
        super().__init__(pipe, cfg, "", condition_area)
        self.guidance, self.text_tokens = guidance, text_tokens

    def lora_targets(self) -> list[str]:
        """Attention of both block types; the single blocks fuse attention and feed-forward into two layers.

        Their output is named in full: `attn.to_out` alone would also match the double blocks' module list.
        """
        single = [f"single_transformer_blocks.{index}.attn.to_out" for index in range(self.config.num_single_layers)]
        return [*ATTENTION, "attn.to_qkv_mlp_proj", *single]

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        return scheduler_sigmas(self.pipe.scheduler, num_steps, flux2_mu(plan.num_tokens, num_steps))

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        """Padded to `text_tokens`: padding is part of what the model was trained on."""
        prompt = self.pipe.encode_prompt(
            prompt=[text], device=self.device, max_sequence_length=self.text_tokens, text_encoder_out_layers=self.text_layers
        )[0]
        return {"prompt": prompt}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        pixels = self.pipe.image_processor.preprocess(picture, height=picture.height, width=picture.width)
        return self.pipe.prepare_image_latents([pixels], 1, None, self.device, self.pipe.vae.dtype)[0]

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        num_samples, device = x_BLD.shape[0], x_BLD.device
        image_ids = pad(positions((cond["grid"], *cond["source_grids"]), SOURCE_TIME), (0, 1))
        text_ids = pad(torch.arange(cond[f"{prefix}prompt"].shape[1])[:, None], (3, 0))  # the fourth coordinate is the place in the text
        return {
            "guidance": None if self.guidance is None else torch.full((num_samples,), self.guidance, device=device),
            "txt_ids": text_ids.to(device).expand(num_samples, -1, -1),
            "img_ids": image_ids.to(device).expand(num_samples, -1, -1),
        }

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        """De-normalised first, then unpatchified."""
        rows, columns = self.grid(plan.height, plan.width)
        norm = self.pipe.vae.bn
        std = (norm.running_var + self.pipe.vae.config.batch_norm_eps).sqrt().view(1, -1, 1, 1).float()
        latents = x_BLD.view(-1, rows, columns, plan.channels).permute(0, 3, 1, 2) * std + norm.running_mean.view(1, -1, 1, 1).float()
        latents = latents.reshape(-1, plan.channels // 4, 2, 2, rows, columns).permute(0, 1, 4, 2, 5, 3)
        return latents.reshape(-1, plan.channels // 4, rows * 2, columns * 2)


# --- Qwen-Image-Edit and its Plus versions ------------------------------------------------------------

INSTRUCTION_TOKENS = 256  # ours: an upper bound for what people write, beside the picture's own tokens


class QwenEdit(DiT):
    """The protocol; words and pictures are read at the sources' encoding size.

    Published checkpoints stretch the schedule to a last sigma of .02: end the window two steps early.

    Guidance is rescaled to the conditional norm. ours: off while training (one forward instead of two, and guidance amplifies every
    mismatch between rollout and replay).
    """

    targets = (*ATTENTION, "img_mlp.net.0.proj", "img_mlp.net.2", "txt_mlp.net.0.proj", "txt_mlp.net.2")
    ragged = True
    rescaled = True

    def _encode_text(self, text: str, pictures: Pictures, encoded: Pictures) -> Conditioning:
        return {"prompt": self.pipe.encode_prompt(prompt=[text], image=list(encoded), device=self.device)[0]}

    def _encode_picture(self, picture: Image.Image) -> torch.Tensor:
        return self.prepared(self.pipe.image_processor.preprocess([picture]).unsqueeze(2), picture)

    def _inputs(self, x_BLD: torch.Tensor, cond: Conditioning, prefix: str) -> dict[str, Any]:
        shapes = [(1, *grid) for grid in (cond["grid"], *cond["source_grids"])]
        return {
            "guidance": None,
            "encoder_hidden_states_mask": cond.get(f"{prefix}mask"),
            "img_shapes": [shapes] * x_BLD.shape[0],  # also splits target from source tokens in models with zero_cond_t
        }

    def vae_latents(self, x_BLD: torch.Tensor, plan: Plan) -> torch.Tensor:
        return denormalised(unpack(x_BLD, plan, self.grid(plan.height, plan.width)).unsqueeze(2), self.pipe.vae.config)


def denormalised(latents: torch.Tensor, config: Any) -> torch.Tensor:
    """Latents [B, C, 1, H, W] by the channels' own mean and deviation."""
    mean, std = (torch.tensor(v, device=latents.device).view(1, -1, 1, 1, 1) for v in (config.latents_mean, config.latents_std))
    return latents * std + mean


def qwen_published(vision_area: int | None = None) -> Published:
    """Sizes of the published checkpoints; the text includes the picture's tokens of the VL encoder, Qwen2.5-VL-7B.

    `vision_area`: square pixels that the VL encoder reads; None = the source at its encoding size.
    """
    return Published(
        64, 20.4e9, 60, 3072, 8.3e9, 0.13e9, qwen_schedule, INSTRUCTION_TOKENS, lambda area: vision_area or area, ("true_cfg", 1.0)
    )
