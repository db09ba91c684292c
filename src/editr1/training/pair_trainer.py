"""The trainer of judges on traces of pairs: TRL's, with advantages over both images of a pair where a way asks for them."""

from __future__ import annotations

from typing import Any

import torch

from editr1.generation import forbidden_tokens
from editr1.training.engines import WatchedTrainer
from editr1.training.masked_head import mask_scores
from editr1.training.shared_prefix import share_prefixes


class PairTrainer(WatchedTrainer):
    """TRL's GRPOTrainer whose only reward function is a `PairReward`.

    TRL compares the traces of one row. Where the group is a pair, that is two rows, the advantages are those of the reward function,
    which has seen the traces of all processes.
    """

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._generate_and_score_completions(inputs)
        (reward,) = self.reward_funcs
        if reward.method.needs.group == "pair":
            out["advantages"] = torch.tensor(reward.advantages, dtype=out["advantages"].dtype, device=out["advantages"].device)
        return out


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
