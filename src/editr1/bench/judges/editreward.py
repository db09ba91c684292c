"""Judges that are heads on a hidden state and say no text: EditReward's (TIGER-AI-Lab/EditReward), and the one that `gcpo` trains.

`editreward`: a normal distribution over quality.

Two prompts an edit, instruction following and visual quality, each ending in `<|Reward|>`; the last hidden state at that token goes
through the prompt's own head, H-1024-16-2, which gives (mu, log sigma). **The second number is uncertainty and not quality**: it is
a named field of `Gaussian`, it never enters a score, and there is no tuple to take a second element of.

    value = 10 / (1 + exp(-mu)), ours: EditReward's mu has no bounds (published scores run from -1.5 to 2.3); the order of edits stays.

Its prompts are read from a copy of github.com/TIGER-AI-Lab/EditReward (MIT): `EditReward/dataset/prompts.py` and, for the words around the
token, `EditReward/dataset/data_collator_qwen_edit.py`.

Weights: TIGER-Lab/EditReward-Qwen2.5-VL-7B on the hub, or EditReward-MiMo-VL-7B-SFT-2508 with base=XiaomiMiMo/MiMo-VL-7B-SFT-2508;
`rm_heads.head_0` and `head_1` beside the backbone in `model.safetensors` of `checkpoint`; backbone and processor come from `base`.

`bradley_terry`: a scalar head, as `gcpo.method: bradley_terry` trains it: one number an edit. value = 10 / (1 + exp(-s)), ours: s has no
bounds; the order of edits stays, and near the ends differences shrink.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from editr1.bench.base import OVERALL, Part, PartedReward
from editr1.bench.judges.base import Project, digest_of
from editr1.errors import BackendError, ConfigError
from editr1.judge.item import Asking, RewardItem, asking
from editr1.judge.prompts import render_score
from editr1.pictures import to_rgb
from editr1.placement import place_of
from editr1.schema import MAX_SCORE, Reward
from editr1.vlm.base import request_images, template_settings, to_messages

PROJECT = Project(
    "editreward",
    ("EditReward/dataset/prompts.py", "EditReward/dataset/data_collator_qwen_edit.py"),
    "Download github.com/TIGER-AI-Lab/EditReward (MIT) and give the folder as prompts=FOLDER; weights: TIGER-Lab/EditReward-Qwen2.5-VL-7B",
)
REWARD_TOKEN = "<|Reward|>"
PLACE = "{text_prompt}"
PIXELS = 256 * 28 * 28  # of each picture, as EditReward was trained
# In the order of head_0, head_1; its names of the two questions.
HEADS = {"prompt_following": "INSTRUCTION_EDIT_FOLLOWING", "perceptual_quality": "INSTRUCTION_EDIT_QUALITY"}
Fusion = Literal["mean", "min", "sum"]
FUSIONS: tuple[Fusion, ...] = ("mean", "min", "sum")


@dataclasses.dataclass(frozen=True, slots=True)
class Gaussian:
    """What a head says of an edit, on the model's own scale."""

    mean: float
    """Quality: higher is better."""
    log_sigma: float
    """Natural logarithm of the standard deviation: higher is less sure. Says nothing about quality."""


@dataclasses.dataclass(frozen=True, slots=True)
class UncertainReward(PartedReward):
    """A reward whose parts are qualities; the distributions stand beside them under their own names."""

    estimate: Gaussian | None = None
    """The fused distribution."""
    heads: dict[str, Gaussian] = dataclasses.field(default_factory=dict)


def fuse(heads: Sequence[Gaussian], fusion: Fusion) -> Gaussian:
    """One distribution of several, as EditReward pools: `mean` and `min` number by number, `sum` as independent variables.

    >>> fuse([Gaussian(1.0, 0.0), Gaussian(3.0, -1.0)], "mean"), fuse([Gaussian(1.0, 0.0), Gaussian(3.0, -1.0)], "min")
    (Gaussian(mean=2.0, log_sigma=-0.5), Gaussian(mean=1.0, log_sigma=-1.0))
    """
    means, logs = [head.mean for head in heads], [head.log_sigma for head in heads]
    if fusion == "sum":
        return Gaussian(sum(means), 0.5 * math.log(sum(math.exp(2 * log) for log in logs)))
    if fusion == "min":
        return Gaussian(min(means), min(logs))
    return Gaussian(sum(means) / len(means), sum(logs) / len(logs))


def to_score(mean: float) -> float:
    """mu on the scale of 0 to 10; rises with mu.

    >>> to_score(0.0), to_score(-800.0)
    (5.0, 0.0)
    """
    return MAX_SCORE * 0.5 * (1.0 + math.tanh(mean / 2.0))


class EditRewardJudge:
    """A loaded backbone with its heads. Made by `build`. Deterministic: seeds change nothing."""

    def __init__(self, model: Any, heads: Sequence[Any], processor: Any, fusion: Fusion, templates: Mapping[str, str], texts: str) -> None:
        self.model = model
        self.heads = list(heads)
        self.processor = processor
        self.fusion = fusion
        self.texts = texts
        self._templates = templates
        self._token = processor.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One UncertainReward an item. Raises BackendError when the memory does not suffice."""
        return [self._score(item) for item in items]

    def _score(self, item: RewardItem) -> UncertainReward:
        begin = time.perf_counter()
        found = {name: self._read(item, text, head) for (name, text), head in zip(HEADS.items(), self.heads, strict=True)}
        estimate = fuse(list(found.values()), self.fusion)
        known = math.isfinite(estimate.mean) and math.isfinite(estimate.log_sigma)
        parts = {name: to_score(head.mean) for name, head in found.items()} | {OVERALL: to_score(estimate.mean)} if known else {}
        return UncertainReward(
            parts.get(OVERALL),
            int(known),
            1,
            reason=None if known else "NOT_FINITE",
            seconds=time.perf_counter() - begin,
            parts=parts,
            estimate=estimate if known else None,
            heads=found if known else {},
        )

    def _read(self, item: RewardItem, text: str, head: Any) -> Gaussian:
        import torch

        inputs = self._inputs(item, text)
        length = inputs["input_ids"].shape[1]
        # EditReward hands embeddings to the backbone, which then counts positions in one dimension, pictures included.
        positions_31L = torch.arange(length, device=self.model.device).expand(3, 1, length)
        try:
            with torch.inference_mode():
                hidden_1LH = self.model(**inputs, position_ids=positions_31L, use_cache=False).last_hidden_state
                at_token = hidden_1LH[inputs["input_ids"] == self._token]
                mean, log_sigma = head(at_token.float())[0].tolist()
        except torch.OutOfMemoryError as error:
            raise BackendError("editreward: out of memory; choose a smaller model or device=cpu") from error
        return Gaussian(mean, log_sigma)

    def _inputs(self, item: RewardItem, name: str) -> dict[str, Any]:
        # An instruction must not hold the token that is read, nor end the turn.
        instruction = item.instruction
        for token in (REWARD_TOKEN, *self.processor.tokenizer.all_special_tokens):
            instruction = instruction.replace(token, f"{token[0]} {token[1:]}")
        text = self._templates[name].replace(PLACE, instruction)
        parts = [{"type": "image"}, {"type": "image"}, {"type": "text", "text": text}]
        prompt = self.processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True, tokenize=False)
        encoded = self.processor(text=[prompt], images=[to_rgb(item.only_source), to_rgb(item.edited)], return_tensors="pt")
        return {key: value.to(self.model.device) for key, value in encoded.items()}


def _build_editreward(
    checkpoint: str,
    prompts: str | None = None,
    base: str = "Qwen/Qwen2.5-VL-7B-Instruct",
    fusion: Fusion = "mean",
    device: str | None = None,
    pixels: int = PIXELS,
) -> EditRewardJudge:
    """The judge with its weights loaded. Raises ConfigError for an option or a file that does not fit.

    checkpoint: folder with `model.safetensors`. prompts: a copy of EditReward's repository, or a folder of the two files.
    base: the checkpoint's backbone with processor. fusion: mean (its default), min or sum of the heads. pixels: of each picture.
    """
    if fusion not in FUSIONS:
        raise ConfigError(f"editreward: fusion is {fusion!r}; expected one of {', '.join(FUSIONS)}")
    templates, texts = _read_prompts(prompts)  # before the weights, which take minutes
    place = str(place_of(device))
    model, heads, processor = _load(Path(checkpoint), base, place, pixels)
    return EditRewardJudge(model, heads, processor, fusion, templates, texts)


def _read_prompts(folder: str | None) -> tuple[dict[str, str], str]:
    """The text of each question by EditReward's name, with the reward token once and PLACE where the instruction goes; and their digest."""
    questions, collator = files = PROJECT.open(folder)
    ending = collator.text("prompt_with_special_token")
    templates = {name: questions.text(name) + ending for name in HEADS.values()}
    for name, text in templates.items():
        if (text.count(REWARD_TOKEN), text.count(PLACE)) != (1, 1):
            raise ConfigError(f"judge editreward: {name} of {questions.path} must hold one {PLACE} and one {REWARD_TOKEN}. {PROJECT.get}")
    return templates, digest_of(files)


_OLD_NAMES = {"visual.": "visual.", "model.visual.": "visual.", "model.language_model.": "language_model.", "model.": "language_model."}


def new_head(hidden: int) -> Any:
    """An untrained head: hidden -> 1024 -> 16 -> (mu, log sigma)."""
    from torch import nn

    return nn.Sequential(nn.Linear(hidden, 1024), nn.ReLU(), nn.Dropout(0.05), nn.Linear(1024, 16), nn.ReLU(), nn.Linear(16, 2))


def _load(checkpoint: Path, base: str, device: str, pixels: int) -> tuple[Any, list[Any], Any]:
    """(backbone, heads, processor), ready to read. Raises ConfigError when a file is missing or a tensor does not fit."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file
    from transformers import AutoModel, AutoProcessor

    path = checkpoint / "model.safetensors"
    if not path.is_file():
        raise ConfigError(f"editreward: {checkpoint} holds no model.safetensors; give the folder of an EditReward checkpoint")
    try:
        processor = AutoProcessor.from_pretrained(base, min_pixels=pixels, max_pixels=pixels)
        model = AutoModel.from_pretrained(base, dtype=torch.bfloat16 if device.startswith("cuda") else torch.float32)
        tensors = load_file(path)
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"editreward: cannot load {base!r} with {path}: {str(error).strip().splitlines()[0]}") from error
    processor.tokenizer.add_special_tokens({"additional_special_tokens": [REWARD_TOKEN]}, replace_extra_special_tokens=False)
    model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    heads = [new_head(model.get_input_embeddings().embedding_dim) for _ in HEADS]
    for number, head in enumerate(heads):
        name = f"rm_heads.head_{number}"
        _fill(
            head, {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}, f"{path}: {name}"
        )
    backbone = {_modern(key): value for key, value in tensors.items() if not key.startswith(("rm_heads.", "lm_head."))}
    _fill(model, backbone, f"{path}: backbone")
    return model.to(device).eval(), [head.float().to(device).eval() for head in heads], processor


def _modern(key: str) -> str:
    """A tensor's name in the bare backbone; checkpoints of older transformers keep the decoder under `model.`."""
    for old, new in _OLD_NAMES.items():
        if key.startswith(old):
            return new + key.removeprefix(old)
    return key


def _fill(module: Any, tensors: dict[str, Any], where: str) -> None:
    try:
        module.load_state_dict(tensors)
    except RuntimeError as error:
        detail = " ".join(str(error).split())[:300]
        raise ConfigError(f"editreward: {where} does not fit: {detail}") from error


editreward = Part(_build_editreward)

# --- a head of our own --------------------------------------------------------------------------------


class BradleyTerryJudge:
    """A loaded model with its head. Made by `build`. Deterministic: seeds change nothing."""

    def __init__(self, model: Any, processor: Any, how: Asking, batch_size: int) -> None:
        self.model = model
        self.processor = processor
        self.how = how
        self.batch_size = batch_size

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        """One reward an item. Raises BackendError when the memory does not suffice, ConfigError for an item without the principles that the
        prompt shows."""
        return [reward for i in range(0, len(items), self.batch_size) for reward in self._score(items[i : i + self.batch_size])]

    def _score(self, items: Sequence[RewardItem]) -> list[Reward]:
        import torch

        from editr1.training.model import encode

        begin = time.perf_counter()
        asked = [render_score(self.how.prompt_id, i.source, i.edited, i.instruction, i.principles or ()) for i in items]
        images = [request_images(request) for request in asked]
        inputs = encode(self.processor, [to_messages(request) for request in asked], images, template_settings(self.how.thinking))
        try:
            with torch.inference_mode():
                scores = self.model(**{name: value.to(self.model.device) for name, value in inputs.items()})
        except torch.OutOfMemoryError as error:
            raise BackendError(f"bradley_terry: out of memory with batch_size={self.batch_size}; lower it") from error
        seconds = (time.perf_counter() - begin) / len(items)
        return [
            Reward(MAX_SCORE * value if known else None, int(known), 1, reason=None if known else "NOT_FINITE", seconds=seconds)
            for value, known in zip(torch.sigmoid(scores).tolist(), torch.isfinite(scores).tolist(), strict=True)
        ]


def _bradley_terry(checkpoint: str, prompt_id: str | None = None, batch_size: int = 16, device: str = "auto") -> BradleyTerryJudge:
    """The judge of a folder that the stage `gcpo` wrote. Raises ConfigError for one without a head.

    prompt_id: None = as it was trained (`judge.item`). batch_size: edits read together. device: `auto`, or any torch device.
    """
    from editr1.training.model import add_head, load_model, load_processor, read_head
    from editr1.training.options import Trained

    if read_head(checkpoint) is None:
        raise ConfigError(f"{checkpoint} holds no score_head.weight; train one with gcpo.method=bradley_terry, or ask it as judge rrm")
    model = add_head(load_model(checkpoint, Trained()), checkpoint)
    return BradleyTerryJudge(model.to(place_of(device)).eval(), load_processor(checkpoint), asking(checkpoint, prompt_id), batch_size)


bradley_terry = Part(_bradley_terry)
