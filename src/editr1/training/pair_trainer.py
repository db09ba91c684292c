"""The trainer of judges on traces of pairs, and what keeps vLLM, colocated or served, on the policy that it trains.

Three things may part the two without an error, and GCPO then learns nothing: pictures that the engine expands a second time (upstream:
trl#6294), pictures of another size, and another distribution over tokens. The first is mended here; all are checked and watched.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer, TrainerCallback, TrainingArguments
from trl import GRPOTrainer
from trl.generation import vllm_generation

from editr1.errors import BackendError, ConfigError
from editr1.pair_learning.base import Head
from editr1.training.model import encode, mask_scores, whole_model
from editr1.training.options import Picture
from editr1.training.shared_prefix import share_prefixes
from editr1.vlm.base import forbidden_tokens

RATIO = "engine_ratio"
"""Logged name: p(trace) by the trainer / p(trace) by the engine, mean over the traces of a step. 1 = the same policy."""
HEALTHY = (0.5, 2.0)
_MOST = 10.0  # ours: what one trace may count at most, so that a lone long one in bfloat16 stops no run


class PairTrainer(GRPOTrainer):
    """TRL's trainer whose only reward function is a `PairReward`; the loss is TRL's.

    It generates with whole weights, and logs how far an engine's policy is from its own. Where the group is a pair, that is two rows, and
    TRL compares the traces of one, the advantages are those of the reward function.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        (reward,) = self.reward_funcs
        if reward.method.needs.group == "pair":
            out["advantages"] = torch.tensor(reward.advantages, dtype=out["advantages"].dtype, device=out["advantages"].device)
        return out

    def _generate_single_turn(self, *args: Any, **kwargs: Any) -> Any:
        if self.use_vllm:
            return super()._generate_single_turn(*args, **kwargs)
        with whole_model(self):
            return super()._generate_single_turn(*args, **kwargs)

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        found = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        self._latest_logps = found[0].detach()
        return found

    def _compute_loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        loss = super()._compute_loss(model, inputs)
        if self.model.training and "sampling_per_token_logps" in inputs:
            own = inputs.get("old_per_token_logps", self._latest_logps)
            ratio = engine_ratio(own, inputs["sampling_per_token_logps"], inputs["completion_mask"])
            self._metrics["train"][RATIO].append(self.accelerator.gather(ratio).mean().item())
        return loss


def start_from(model: Any, path: Any) -> None:
    """Lets TRL load the reference of a KL term from `path`, wherever the model's own weights came from (a resume point)."""
    model.config._name_or_path = str(path)


def prepare_reference(trainer: Any, processor: Any, share_prompts: bool) -> None:
    """The reference of a KL term scores as the policy does: without forbidden tokens, with shared prompts. Nothing without one."""
    if trainer.ref_model is None:
        return
    reference = trainer.accelerator.unwrap_model(trainer.ref_model)
    mask_scores(reference, forbidden_tokens(reference, processor))
    if share_prompts:
        share_prefixes(reference)


# --- an engine beside the trainer ---------------------------------------------------------------------


def picture_runs(token_ids: Sequence[int], picture_token: int) -> list[int]:
    """Lengths of the runs of a picture's stand-ins.

    >>> picture_runs([1, 5, 5, 5, 2, 5, 3], 5)
    [3, 1]
    """
    return [len(list(run)) for token, run in groupby(token_ids) if token == picture_token]


def one_a_picture(token_ids: Sequence[int], picture_token: int) -> list[int]:
    """The prompt with one stand-in a picture, as an engine expects it that expands them itself.

    >>> one_a_picture([1, 5, 5, 5, 2, 5, 3], 5)
    [1, 5, 2, 5, 3]
    """
    return [token for i, token in enumerate(token_ids) if not (token == picture_token and i and token_ids[i - 1] == picture_token)]


@contextlib.contextmanager
def picture_budget(picture: Picture) -> Iterator[None]:
    """A colocated engine that is built inside shrinks pictures as `picture` says: TRL has no setting for it."""
    known = {"min_pixels": picture.min_pixels, "max_pixels": picture.max_pixels}
    budget = {name: value for name, value in known.items() if value is not None}
    if not budget or not hasattr(vllm_generation, "LLM"):
        yield
        return
    plain = vllm_generation.LLM
    vllm_generation.LLM = functools.partial(plain, mm_processor_kwargs=budget)
    try:
        yield
    finally:
        vllm_generation.LLM = plain


def keep_on_policy(trainer: Any, engine: str, processor: Any) -> None:
    """The traces of an engine are the policy's own, or the run stops. engine: of `options.Generation`."""
    if engine == "vllm_colocate":
        send_pictures_once(trainer.vllm_generation, processor.image_token_id)
    elif engine == "vllm_server":
        check_served_pictures(trainer.vllm_generation, processor.image_token_id)
    trainer.add_callback(EngineAlarm())


def send_pictures_once(engine: Any, picture_token: int) -> None:
    """Mends a colocated `VLLMGeneration` in place. Its first batch raises ConfigError where the engine read other pictures."""
    generate, checked = engine.generate, False

    @functools.wraps(generate)
    def once(prompts: list[list[int]], images: Any, num_generations: int, profiler: Any = None) -> Any:
        nonlocal checked
        out = generate([one_a_picture(ids, picture_token) for ids in prompts], images, num_generations, profiler)
        if not checked:
            for ours, theirs, shown in zip(prompts, out[0], images or [None] * len(prompts), strict=True):
                _check(picture_runs(ours, picture_token), picture_runs(theirs, picture_token), len(shown or ()))
            checked = True
        return out

    engine.generate = once


def check_served_pictures(engine: Any, picture_token: int) -> None:
    """A `VLLMGeneration` in server mode raises ConfigError where the server made other pictures of a prompt's than the trainer."""
    place: Callable[..., Any] = engine._place_features

    @functools.wraps(place)
    def checked(features: dict[str, Any] | None, prompt_ids: list[int]) -> Any:
        if features is not None:
            theirs = [picture["length"] for picture in features["mm_placeholders"]["image"]]
            _check(picture_runs(prompt_ids, picture_token), theirs, len(theirs))
        return place(features, prompt_ids)

    engine._place_features = checked


def _check(ours: list[int], theirs: list[int], num_pictures: int) -> None:
    if len(ours) != num_pictures:
        raise ConfigError(
            f"a prompt shows {num_pictures} pictures in {len(ours)} runs of picture tokens; engines of this model's kind cannot be handed "
            "its prompts: set gcpo.generation.engine=transformers"
        )
    if ours != theirs:
        raise ConfigError(
            f"the engine reads {theirs} tokens for the pictures of a prompt, the trainer {ours}: traces of other pictures teach nothing. "
            "Give both the same budget: gcpo.picture here, and `vllm serve --mm-processor-kwargs` for a server"
        )


def engine_ratio(own_BT: torch.Tensor, engine_BT: torch.Tensor, mask_BT: torch.Tensor) -> torch.Tensor:
    """p_trainer(trace) / p_engine(trace) of each trace, `[B]`, at most 10. A token that the engine could not score counts as equal."""
    difference_BT = torch.nan_to_num((own_BT - engine_BT) * mask_BT, nan=0.0)
    return difference_BT.sum(-1).exp().clamp(max=_MOST)


class EngineAlarm(TrainerCallback):
    """Raises BackendError when the traces are not the policy's own."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        ratio = (logs or {}).get(RATIO)
        if ratio is not None and not HEALTHY[0] <= ratio <= HEALTHY[1]:
            raise BackendError(
                f"step {state.global_step}: the engine samples another policy than the one that is trained: probability ratio {ratio:.3g}, "
                f"expected 1, stopped outside {HEALTHY[0]:g} to {HEALTHY[1]:g}. Compare gcpo.picture, the weights that the engine took "
                "over, its dtype and (for a server) --logprobs-mode processed_logprobs; gcpo.generation.engine=transformers is on policy"
            )


# --- a scalar head, without traces: both edits of a pair are read once and their scores meet in a loss ----


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
