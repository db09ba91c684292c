"""A scalar head on a judge, trained on pairs without a trace: both edits of a pair are read once and their scores meet in a loss.

The head reads the last hidden state of the question, where a reasoning judge would begin to write. It lies in the checkpoint beside the
weights, as `score_head.weight`, and `bench.judges.plain` asks it.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from editr1.errors import ConfigError
from editr1.pair_learning.base import Head

NAME = "score_head"


def add_head(model: Any, path: str | Path) -> Any:
    """The model, whose forward now gives one score a row, `[B]`, of unbounded scale. The head comes from `path`, or begins at 0."""
    weight_1H = read_head(path)
    head = torch.nn.Linear(model.get_input_embeddings().weight.shape[1], 1, bias=False)
    head.weight.data.copy_(torch.zeros_like(head.weight) if weight_1H is None else weight_1H)
    setattr(model, NAME, head.to(model.device))
    model.forward = types.MethodType(_score, model)
    return model


def read_head(path: str | Path) -> Tensor | None:
    """`[1, H]` from the weights in a folder; None where it holds no head."""
    from safetensors import safe_open

    for file in sorted(Path(path).glob("*.safetensors")):
        with safe_open(str(file), framework="pt") as weights:
            if f"{NAME}.weight" in weights.keys():  # noqa: SIM118 - no mapping
                found: Tensor = weights.get_tensor(f"{NAME}.weight")
                return found.float()
    return None


def _score(self: Any, **inputs: Any) -> Tensor:
    hidden_BLH = self.base_model(**inputs, use_cache=False).last_hidden_state
    scores: Tensor = getattr(self, NAME)(hidden_BLH[:, -1].float())[:, 0]  # padding is on the left
    return scores


def encode(processor: Any, messages: Sequence[Any], images: Sequence[Any], template: Mapping[str, bool]) -> dict[str, Tensor]:
    """Model inputs of a batch of questions (as `vlm.base.to_messages` gives them), padded on the left."""
    processor.tokenizer.padding_side = "left"
    texts = [processor.apply_chat_template(one, add_generation_prompt=True, tokenize=False, **template) for one in messages]
    return dict(processor(text=texts, images=list(images), padding=True, return_tensors="pt"))


class HeadTrainer(Trainer):
    """Transformers' trainer over adjacent rows of pairs, the preferred edit first."""

    def __init__(self, method: Head, **settings: Any) -> None:
        super().__init__(**settings)
        self.method = method
        self.model_accepts_loss_kwargs = False  # the mean over the micro-batches of a step
        self._figures: dict[str, list[float]] = {}

    def compute_loss(self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None) -> Any:
        score_w_P, score_l_P = model(**inputs).view(-1, 2).unbind(1)
        loss = self.method.loss(score_w_P, score_l_P).mean()
        gap_P = (score_w_P - score_l_P).detach()
        self._note("pair_accuracy", ((gap_P > 0).float() + 0.5 * (gap_P == 0).float()).mean())
        self._note("score_gap", gap_P.mean())
        return (loss, None) if return_outputs else loss

    def _note(self, name: str, value: Tensor) -> None:
        self._figures.setdefault(name, []).append(float(self.accelerator.gather(value[None]).mean()))

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Logs the means of the step's figures beside the trainer's own."""
        found = {name: math.fsum(values) / len(values) for name, values in self._figures.items()}
        self._figures.clear()
        super().log({**logs, **found}, *args, **kwargs)


def head_trainer(
    model: Any, processor: Any, rows: Any, method: Head, arguments: Mapping[str, Any], optimizers: Any, template: Mapping[str, bool]
) -> HeadTrainer:
    """The trainer over a data set of `PairRows`, which it reads in its order. model: with its head (`add_head`).

    Raises ConfigError for a micro-batch that would tear a pair apart.
    """
    if arguments["per_device_train_batch_size"] % 2:
        raise ConfigError("machine.micro_batch must be even: the two edits of a pair meet in a micro-batch")

    def collate(batch: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        assert [row["side"] for row in batch] == ["w", "l"] * (len(batch) // 2), "rows of a pair are adjacent"
        return encode(processor, [row["prompt"] for row in batch], [row["images"] for row in batch], template)

    settings = TrainingArguments(**arguments, train_sampling_strategy="sequential")
    return HeadTrainer(method, model=model, args=settings, train_dataset=rows, data_collator=collate, optimizers=optimizers)
