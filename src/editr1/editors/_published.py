"""Published checkpoints: how they are loaded, the sizes that follow from a target, and what a run on them costs."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import torch

from editr1.editors.base import Footprint, Plan
from editr1.errors import ConfigError
from editr1.objectives.schedule import Schedule
from editr1.placement import place_of

TEXT_PARTS = ("text_encoder", "text_encoder_2")
MAX_TEXT_TOKENS = 512  # of FLUX.1 and FLUX.2
VISION_PIXELS = 28  # side of the square that Qwen2.5-VL turns into one token

T = TypeVar("T")


def load(cls: Callable[..., T], pipeline: Any, path: str, dtype: str, device: str | None, encoders: bool, *options: Any) -> T:
    """`cls(pipe, *options)`. What the options of all trainable editors mean:

    Args:
        path: the diffusers pipeline, a local folder or a hub name.
        dtype: of the frozen weights.
        device: None = this process' accelerator.
        encoders: False leaves the text encoders on disk; such an editor cannot encode (edit_rl.cache_encodings sets it).
        negative: text of the second pass of classifier-free guidance.
        condition_area: square pixels of an encoded source; None = the target's size (Qwen's and LongCat's pipelines take 1024 x 1024).
    """
    # What is None, diffusers does not load.
    absent = {} if encoders else {name: None for name in TEXT_PARTS if name in inspect.signature(pipeline.__init__).parameters}
    editor = cls(load_pipeline(pipeline, path, dtype, device, **absent), *options)
    cast(Any, editor).encoders = encoders
    return editor


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
    return prepare_pipeline(pipe, device)


def prepare_pipeline(pipe: Any, device: str | None = None) -> Any:
    """Freezes every part and moves it to its device."""
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_(False).eval()
    return pipe.to(str(place_of(device)))


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
    text: Callable[[Mapping[str, Any], int], int]
    """The most text tokens, from the editor's options and the square pixels of the encoded source."""
    cfg: tuple[str, float] = ("", 1.0)
    """The option that is classifier-free guidance, where there is one, and its default."""
    token: int = 16
    """Side of the square of pixels that a token stands for."""
    multiple: int = 16
    """What height and width snap to."""

    def footprint(self, height: int, width: int, num_steps: int, options: Mapping[str, Any]) -> Footprint:
        """Sizes and cost without weights."""
        plan = make_plan(height, width, self.channels, self.multiple, self.token)
        area = math.prod(condition_size(plan, options.get("condition_area"), self.multiple))
        return Footprint(
            plan, area // self.token**2, self.text(options, area), 2 if options.get(*self.cfg) > 1.0 else 1, self.num_parameters,
            self.schedule(num_steps, plan.num_tokens).sigmas, self.num_layers, self.hidden, self.num_encoder_parameters,
            self.num_vae_parameters,
        )  # fmt: skip


def text_tokens(options: Mapping[str, Any], area: int) -> int:
    """Of editors that pad words to their option `text_tokens`."""
    return int(options.get("text_tokens", MAX_TEXT_TOKENS))


def make_plan(height: int, width: int, channels: int, multiple: int, token: int) -> Plan:
    """Sizes snapped down to `multiple`, at `token` x `token` pixels a token. Raises ConfigError when nothing is left."""
    height, width = height // multiple * multiple, width // multiple * multiple
    if height < multiple or width < multiple:
        raise ConfigError(f"a target of {width} x {height} px is smaller than {multiple} px: raise height and width")
    return Plan(height, width, (height // token) * (width // token), channels)


def condition_size(plan: Plan, area: int | None, multiple: int) -> tuple[int, int]:
    """(height, width) at which the source picture is encoded: the target's, or its shape at `area` square pixels.

    ours: the target's size; diffusers encodes sources at 1024 x 1024, which at a 512-pixel target makes every forward
    more than twice as long for nothing.
    """
    if area is None:
        return plan.height, plan.width
    ratio = plan.width / plan.height
    height, width = math.sqrt(area / ratio), math.sqrt(area * ratio)
    return max(multiple, round(height / multiple) * multiple), max(multiple, round(width / multiple) * multiple)
