"""The smallest editor that is real: diffusers' FluxTransformer2DModel on 8 x 8 pictures whose pixels are the latents."""

from __future__ import annotations

import numpy as np
import torch
from diffusers import FluxTransformer2DModel
from PIL import Image

from editr1.editors.base import Plan, sigma_rows
from editr1.schema import EditTask, Principle, Reward, TaskPrinciples
from editr1.store.engine import Work

SIDE, PATCH = 8, 4
TOKENS, CHANNELS = (SIDE // PATCH) ** 2, PATCH * PATCH * 3


def pack(images_BHWC):
    grid = SIDE // PATCH
    x = images_BHWC.reshape(-1, grid, PATCH, grid, PATCH, 3).permute(0, 1, 3, 2, 4, 5)
    return x.reshape(-1, TOKENS, CHANNELS)


def unpack(x_BLD):
    grid = SIDE // PATCH
    return x_BLD.reshape(-1, grid, grid, PATCH, PATCH, 3).permute(0, 1, 3, 2, 4, 5).reshape(-1, SIDE, SIDE, 3)


class ToyEditor:
    """A FlowEditor whose calls are counted."""

    name = "toy"

    def __init__(self, seed=0):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.transformer = FluxTransformer2DModel(
                patch_size=1, in_channels=2 * CHANNELS, out_channels=CHANNELS, num_layers=1, num_single_layers=1, attention_head_dim=8,
                num_attention_heads=2, joint_attention_dim=8, pooled_projection_dim=8, axes_dims_rope=(4, 2, 2),
            ).eval()  # fmt: skip
        self.events = []

    def lora_targets(self):
        return ["to_q", "to_k", "to_v", "to_out.0", "proj_mlp", "proj_out", "x_embedder"]

    def plan(self, height, width):
        return Plan(SIDE, SIDE, TOKENS, CHANNELS)

    def sigmas(self, plan, num_steps):
        return tuple(1 - step / num_steps for step in range(num_steps + 1))

    def encode(self, sources, instructions, plan):
        self.events.append(("encode", len(sources)))
        pixels = torch.from_numpy(np.stack([np.asarray(s.resize((SIDE, SIDE)), dtype=np.float32) for s in sources]) / 127.5 - 1)
        words = torch.tensor([[float(ord(c)) / 128 for c in text.ljust(8)[:8]] for text in instructions])
        return {"source": pack(pixels), "words": words[:, None, :]}

    def latents(self, images, plan):
        return self.encode(images, [""] * len(images), plan)["source"]

    def expand(self, cond, copies):
        return {name: rows.repeat_interleave(copies, dim=0) for name, rows in cond.items()}

    def collate(self, conds):
        return {name: torch.cat([cond[name] for cond in conds]) for name in conds[0]}

    def noise(self, plan, seeds):
        return torch.stack([torch.randn((TOKENS, CHANNELS), generator=torch.Generator().manual_seed(s)) for s in seeds])

    def velocity(self, x_BLD, sigma, cond):
        self.events.append(("velocity", len(x_BLD)))
        ids = torch.zeros(TOKENS, 3)
        ids[:, 1], ids[:, 2] = torch.arange(TOKENS) // 2, torch.arange(TOKENS) % 2
        return self.transformer(
            hidden_states=torch.cat([x_BLD, cond["source"]], dim=-1), encoder_hidden_states=cond["words"],
            pooled_projections=cond["words"][:, 0], timestep=sigma_rows(sigma, x_BLD), img_ids=ids, txt_ids=torch.zeros(1, 3),
            return_dict=False,
        )[0]  # fmt: skip

    def decode(self, x_BLD, plan):
        self.events.append(("decode", len(x_BLD)))
        pixels = ((unpack(x_BLD).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()
        return [Image.fromarray(p) for p in pixels]


def build():
    return ToyEditor()


def redness(image):
    """tau: red minus the other channels, in [0, 10]."""
    pixels = np.asarray(image, dtype=np.float32) / 255
    return float(5 + 5 * (pixels[..., 0].mean() - (pixels[..., 1].mean() + pixels[..., 2].mean()) / 2))


def score_redness(edits, seed):
    return [Reward(redness(image), 1, 1, (1.0,), None, (Principle("Is it red?", "follow"),)) for _, image in edits]


class RednessJudge:
    """The same as a judge component."""

    def score(self, items, seed):
        return [Reward(redness(item.edited), 1, 1, (1.0,), None, item.principles) for item in items]


def write_tasks(run, num=12):
    """02_principles with `num` tasks on sources of their own; two of them share an instruction."""
    rows = []
    for index in range(num):
        source = run.images.put(Image.new("RGB", (SIDE, SIDE), (20 * index % 256, 80, 200)))
        task = EditTask.make(source, f"redden {max(0, index - 1)}", kind="colour")
        rows.append((task.id, TaskPrinciples(task, (Principle("Is it red?", "follow"),))))
    run.process("02_principles", rows, Work(lambda: list), settings={})
