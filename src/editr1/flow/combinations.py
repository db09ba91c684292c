"""Settings of editor RL that are right alone and wrong together."""

from __future__ import annotations

from collections.abc import Iterator
from inspect import signature
from typing import TYPE_CHECKING

from editr1.algorithms.base import Needs
from editr1.config import load
from editr1.objectives.sde import window_steps

if TYPE_CHECKING:
    from editr1.flow.config import Config


def combinations(c: Config, needs: Needs) -> Iterator[tuple[bool, str]]:
    """(whether it is so, what is wrong with it and what to do) of settings that are right alone; each may rely on those before it."""
    t, s, name = c.training, c.sampling, c.training.algorithm.id
    yield c.group_size < 2, f"group_size must be at least 2 (an advantage compares edits of one task), found {c.group_size}"
    updates = t.updates_per_rollout
    yield c.contexts % updates > 0, f"contexts = {c.contexts} must be a multiple of updates_per_rollout = {updates}"
    yield not needs.noisy and s.same_start, f"{name} samples without noise, so same_start would make all edits of a group equal"
    yield needs.means and s.log_prob != "normal", f"{name} compares normal densities: set sampling.log_prob to normal"
    yield (
        needs.on_policy and not c.on_policy,
        f"{name} makes one update a rollout, of the policy's own edits (no ratio corrects earlier ones): "
        "set updates_per_rollout: 1 and rollout_ahead: false",
    )
    yield from _placement_combinations(c, needs)
    yield from _source_combinations(c, needs)
    ranges = (c.curation.min_mean, c.curation.max_mean)
    yield (
        needs.teacher is not None and (ranges != (None, None) or c.curation.redraw > 0 or bool(c.curation.weights)),
        f"{name} hears no judge: curation's weights, min_mean, max_mean and redraw act on rewards",
    )
    ranks = needs.samples_per_group is not None and bool(c.curation.weights)
    yield ranks, f"{name} learns from the order inside a group, which curation.weights does not change: leave weights out"
    if needs.noisy:
        window_steps(s.window_kind, s.window, s.first, s.last, seed=0, iteration=0, num_steps=s.steps, hold=s.hold)
        silent = s.level == 0 or s.kind == "ode"
        yield (
            silent,
            f"{name} needs a noise level above 0 and a noisy sampling.kind: without noise the policy has no density (nft needs none)",
        )


def _placement_combinations(c: Config, needs: Needs) -> Iterator[tuple[bool, str]]:
    """Of what saves memory or time."""
    t, batch = c.training, c.contexts_per_batch * c.group_size
    yield (
        t.shard and c.contexts_per_batch != 1,
        "shard gathers weights from all processes: it needs contexts_per_batch: 1 to keep them in step",
    )
    yield (
        t.shard and t.weights == "full" and t.lr_matrices is not None,
        "lr_matrices: Muon turns whole matrices and shard cuts them; use AdamW (lr_matrices: null) or weights: lora",
    )
    yield (
        t.zero == 2 and not (t.shard and t.weights == "full"),
        "zero: 2 keeps weights whole and cuts what full fine-tuning adds to them: it needs shard: true and weights: full; found "
        f"{t.shard}, {t.weights}",
    )
    yield (
        c.curation.redraw > 0 and (c.contexts_per_batch != 1 or t.shard),
        "curation.redraw replaces single groups: it needs contexts_per_batch: 1, and no shard",
    )
    yield (
        c.curation.first_pass > 0 and t.shard,
        "curation.first_pass lets processes sample different numbers of tasks: it needs shard: false",
    )
    cut = 0 < t.micro_batch < batch
    yield (
        c.keep_graphs and not (needs.noisy and needs.old_decay is None and c.on_policy and not cut and not t.shard),
        "keep_graphs goes back through the noisy steps of a rollout as they were sampled: it needs an algorithm of noisy rollouts, "
        f"updates_per_rollout: 1, rollout_ahead: false, shard: false, and micro_batch 0 or at least the rollout's {batch}; found "
        f"{t.algorithm.id}, {t.updates_per_rollout}, {c.rollout_ahead}, {t.shard}, {t.micro_batch}",
    )


def _source_combinations(c: Config, needs: Needs) -> Iterator[tuple[bool, str]]:
    """Of where edits come from."""
    t, name, pairs = c.training, c.training.algorithm.id, c.source == "pairs"
    yield (
        pairs and (needs.noisy or c.group_size != 2 or c.curation != type(c.curation)()),
        f"source: pairs needs group_size: 2, no curation, and an algorithm of the forward process (dpo), found {name}",
    )
    yield pairs and c.evaluation.hacking > 0, "evaluation.hacking waits for a training reward that rises, and source: pairs has none"
    if c.rollout is not None:
        yield needs.noisy, f"{name} learns from the steps of a rollout, and a server gives finished edits: take nft, awm, dgpo or dpo"
        yield (
            t.weights != "lora" or pairs or c.rollout_ahead,
            "rollout: {engine: ...} pushes a LoRA: it needs weights: lora, source: rollout and rollout_ahead: false",
        )
        yield (
            c.rollout.push_every < 1 or (needs.on_policy and c.rollout.push_every > 1),
            f"{name} with push_every: {c.rollout.push_every}: expected 1, or more for nft, whose sampler may be an old copy",
        )
        options = signature(load("editors", c.rollout.engine.id)).parameters
        reads = {"size", "extra_body"} <= options.keys() or any(option.kind is option.VAR_KEYWORD for option in options.values())
        yield not reads, f"rollout.engine {c.rollout.engine.id!r} is no server that takes a LoRA a request: take images_api"
    yield (
        c.rollout_ahead and (c.curation.redraw > 0 or pairs),
        "rollout_ahead overlaps judging with updates: it needs source: rollout and curation.redraw: 0",
    )
