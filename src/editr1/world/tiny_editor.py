"""The embedded editor: diffusers' FluxTransformer2DModel at 2 million parameters, the stand-in for FLUX.1-Kontext.

It edits 72 x 72 pictures of the embedded world. Two things differ from Kontext and are honest simplifications: a
PCA codec in place of the VAE, and the source picture joins by channel (each target token carries the source
latents of its place) and not as further tokens. Words enter as one-hot rows, so that the transformer's own
context embedder is the text encoder.

The codec is principal components of 12 x 12 pixel patches: linear, orthogonal and exactly invertible on its own span; fitted on clean
pictures by `research/pretrain_editor.py`. Components are divided by the square root of their standard deviation, half-way between plain
PCA (detail drowns in the noise) and whitening (detail outweighs the rest).

Shape legend: B samples, L target tokens (36), D latent channels (48), T words (20), V vocabulary, P pixels of a patch times 3.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image
from safetensors.numpy import load_file

from editr1.editors.base import Conditioning, EditRequest, Plan, sigma_rows
from editr1.errors import DataError
from editr1.pictures import from_decoder
from editr1.placement import place_of
from editr1.world.scene import BACKGROUNDS, CELLS, COLOURS, LETTERS, MATERIALS, SHAPES, SIZE, STYLES, TONES, to_pixels

PATCH = 12
NUM_PATCHES = (SIZE // PATCH) ** 2
CHANNELS = 48


def to_patches(pixels_BHWC: np.ndarray) -> np.ndarray:
    """[B, SIZE, SIZE, 3] -> [B, L, P], patches in reading order."""
    batch, side = pixels_BHWC.shape[0], SIZE // PATCH
    return pixels_BHWC.reshape(batch, side, PATCH, side, PATCH, 3).swapaxes(2, 3).reshape(batch, side * side, -1)


@dataclass(frozen=True, slots=True)
class Codec:
    """Pixels in [0, 1] <-> latents of about unit variance."""

    mean_P: np.ndarray
    basis_DP: np.ndarray
    """Orthonormal rows."""
    scale_D: np.ndarray

    def encode(self, pixels_BHWC: np.ndarray) -> np.ndarray:
        """[B, SIZE, SIZE, 3] -> [B, L, D], float32."""
        return ((to_patches(pixels_BHWC) - self.mean_P) @ self.basis_DP.T / self.scale_D).astype(np.float32)

    def decode(self, latents_BLD: np.ndarray) -> np.ndarray:
        """[B, L, D] -> [B, SIZE, SIZE, 3], not clipped."""
        patches_BLP = (latents_BLD * self.scale_D) @ self.basis_DP + self.mean_P
        batch, side = patches_BLP.shape[0], SIZE // PATCH  # the inverse of `to_patches`
        return patches_BLP.reshape(batch, side, side, PATCH, PATCH, 3).swapaxes(2, 3).reshape(batch, SIZE, SIZE, 3)


WEIGHTS = Path(__file__).parent / "weights" / "editor"
NUM_WORDS = 20
_FUNCTION_WORDS = "change the background to redraw scene in style give a tone add at remove move replace with letter make and then"
VOCABULARY: tuple[str, ...] = tuple(
    dict.fromkeys(
        ("<pad>", "<unk>", *_FUNCTION_WORDS.split(), *CELLS, *COLOURS, *SHAPES, *LETTERS, *MATERIALS, *BACKGROUNDS, *TONES, *STYLES)
    )
)
_WORD_INDEX = {word: index for index, word in enumerate(VOCABULARY)}


def word_rows(instructions: Sequence[str]) -> torch.Tensor:
    """[B, T, V] one-hot; longer texts are cut, shorter ones padded with a word of their own."""
    unknown = _WORD_INDEX["<unk>"]
    ids = torch.zeros(len(instructions), NUM_WORDS, dtype=torch.long)
    for row, text in enumerate(instructions):
        words = [_WORD_INDEX.get(word, unknown) for word in text.split()[:NUM_WORDS]]
        ids[row, : len(words)] = torch.tensor(words, dtype=torch.long)
    return torch.nn.functional.one_hot(ids, len(VOCABULARY)).float()


def _ids(device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Rotary positions: picture tokens by row and column, words by their order (axis 0)."""
    side = SIZE // PATCH
    image = torch.zeros(NUM_PATCHES, 3)
    image[:, 1] = torch.arange(NUM_PATCHES) // side
    image[:, 2] = torch.arange(NUM_PATCHES) % side
    text = torch.zeros(NUM_WORDS, 3)
    text[:, 0] = torch.arange(NUM_WORDS) + 1  # 0 belongs to the picture
    return image.to(device), text.to(device)


def predict_velocity(
    transformer: torch.nn.Module, x_BLD: torch.Tensor, sigma_B: torch.Tensor, source_BLD: torch.Tensor, words_BTV: torch.Tensor
) -> torch.Tensor:
    """v = dx/dsigma [B, L, D]. The bag of words (without padding) goes where Flux has CLIP's pooled text."""
    image_ids, text_ids = _ids(x_BLD.device)
    bag = words_BTV.sum(dim=1)
    bag[:, 0] = 0
    return transformer(
        hidden_states=torch.cat([x_BLD, source_BLD], dim=-1),
        encoder_hidden_states=words_BTV,
        pooled_projections=bag,
        timestep=sigma_B,
        img_ids=image_ids,
        txt_ids=text_ids,
        return_dict=False,
    )[0]


class TinyEditor:
    """Both protocols of editors/base.py: makes candidates, and can be trained by Flow-GRPO."""

    name = "tiny_flow"

    def __init__(self, transformer: FluxTransformer2DModel, codec: Codec, num_steps: int = 6) -> None:
        self.transformer: torch.nn.Module = transformer.eval()
        self.codec = codec
        self.num_steps = num_steps

    @property
    def device(self) -> torch.device:
        return next(self.transformer.parameters()).device

    def lora_targets(self) -> list[str]:
        return ["to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out", "proj_mlp", "proj_out"]

    def plan(self, height: int, width: int) -> Plan:
        """Always 72 x 72: the embedded world knows no other size."""
        return Plan(SIZE, SIZE, NUM_PATCHES, CHANNELS)

    def sigmas(self, plan: Plan, num_steps: int) -> tuple[float, ...]:
        """Evenly spaced: at 36 tokens the resolution shift of Flux would be close to none."""
        return tuple(1 - step / num_steps for step in range(num_steps + 1))

    def encode(self, sources: Sequence[Image.Image], instructions: Sequence[str], plan: Plan) -> Conditioning:
        pixels = np.stack([to_pixels(source) for source in sources])
        source = torch.from_numpy(self.codec.encode(pixels))
        return {"source": source.to(self.device), "words": word_rows(instructions).to(self.device)}

    def latents(self, images: Sequence[Image.Image], plan: Plan) -> torch.Tensor:
        latents = self.codec.encode(np.stack([to_pixels(image) for image in images]))
        return torch.from_numpy(latents).float().to(self.device)

    def expand(self, cond: Conditioning, copies: int) -> Conditioning:
        return {name: rows.repeat_interleave(copies, dim=0) for name, rows in cond.items()}

    def collate(self, conds: Sequence[Conditioning]) -> Conditioning:
        return {name: torch.cat([cond[name] for cond in conds]) for name in conds[0]}

    def noise(self, plan: Plan, seeds: Sequence[int]) -> torch.Tensor:
        shape = (plan.num_tokens, plan.channels)
        rows = [torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in seeds]  # the same on every device
        return torch.stack(rows).to(self.device)

    def velocity(self, x_BLD: torch.Tensor, sigma: float | torch.Tensor, cond: Conditioning) -> torch.Tensor:
        sigma_B = sigma_rows(sigma, x_BLD)
        return predict_velocity(self.transformer, x_BLD, sigma_B, cond["source"], cond["words"])

    def decode(self, x_BLD: torch.Tensor, plan: Plan) -> list[Image.Image]:
        return [from_decoder(pixels_HWC, self.name) for pixels_HWC in self.codec.decode(x_BLD.detach().cpu().numpy())]

    @torch.no_grad()
    def edit(self, requests: Sequence[EditRequest]) -> list[Image.Image]:
        """Plain Euler steps along the flow, all requests as one batch."""
        plan = self.plan(SIZE, SIZE)
        cond = self.encode([r.only_source(self.name) for r in requests], [r.instruction for r in requests], plan)
        x = self.noise(plan, [r.seed for r in requests])
        sigmas = self.sigmas(plan, self.num_steps)
        for sigma, next_sigma in itertools.pairwise(sigmas):
            x = x + (next_sigma - sigma) * self.velocity(x, sigma, cond)
        return self.decode(x, plan)


def build(path: str | None = None, transformer: str | None = None, num_steps: int = 6, device: str = "auto") -> TinyEditor:
    """The editor at `path`, by default the one that is shipped with the package.

    Args:
        path: folder of a tiny editor.
        transformer: folder of other transformer weights to put in, such as those that editor RL left.
        num_steps: Euler steps of an edit.
        device: `auto` takes this process' own GPU, else the CPU; or any torch device.

    Raises:
        DataError: the folder holds no tiny editor.
    """
    folder = Path(path) if path else WEIGHTS
    if not (folder / "codec.safetensors").exists():
        raise DataError(f"{folder} holds no tiny editor (codec.safetensors is missing); leave `path` out for the shipped one")
    weights = Path(transformer) if transformer else folder / "transformer"
    if not (weights / "config.json").exists():
        raise DataError(f"{weights} holds no transformer (config.json is missing)")
    parts = load_file(folder / "codec.safetensors")
    model = FluxTransformer2DModel.from_pretrained(weights, torch_dtype=torch.float32)
    return TinyEditor(model.to(place_of(device)), Codec(parts["mean"], parts["basis"], parts["scale"]), num_steps)
