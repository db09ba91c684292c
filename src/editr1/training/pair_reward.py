"""The one reward function of learning from pairs: completions in, rewards out, on any number of processes.

A trainer groups traces by image (plain GRPO groups) and calls a reward function with its local completions. What a way to learn
from pairs adds (`pair_learning`) is that the two images of a human pair reward each other, and they may lie on different ranks. So the
function parses what is local, gathers (pair, side, score) from all ranks, and returns the rewards of the local traces; the trainer then
subtracts the group mean, which for GCPO gives the advantages of arXiv 2604.27505, section 3.2. TRL's GRPOTrainer and ms-swift call it
unchanged; where both images of a pair are one group, `PairTrainer` takes the advantages from here.

Rows of a pair must meet in one generation batch; a pair with a missing side stops the run instead of training on half a pair.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from editr1.config import Component, create
from editr1.errors import DataError
from editr1.judge.parse import parse
from editr1.objectives import gcpo
from editr1.pair_learning.base import Method, advantages
from editr1.schema import FAILURE_CODES, Judgement, Outcome
from editr1.training.options import RewardOptions

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReadTrace:
    """One trace as the reward sees it."""

    pair: int
    side: str
    """`w` for the preferred image, `l` for the other."""
    same: bool
    score: float
    """tau in [0, 10]; nan when Phi could not read the trace."""
    code: str
    """Failure code of Phi; empty when it parsed."""
    num_tokens: int


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """A pair with all its traces: rewards (for GCPO ratios) and advantages of both sides, each `[N]`."""

    winners: tuple[ReadTrace, ...]
    losers: tuple[ReadTrace, ...]
    ratio_w: torch.Tensor
    ratio_l: torch.Tensor
    advantage_w: torch.Tensor
    advantage_l: torch.Tensor
    groups: tuple[torch.Tensor, ...]
    """The rewards of traces that are compared with each other: one group an image, or one for the pair."""


Gather = Callable[[list[ReadTrace]], tuple[list[ReadTrace], int]]
"""Local traces -> (those of all ranks in rank order, the place of the first local one among them)."""


@dataclass
class PairReward:
    """Callable that TRL and ms-swift take as a reward function."""

    options: RewardOptions = field(default_factory=RewardOptions)
    gather: Gather | None = None
    """None = `torch.distributed` where it is initialised."""
    max_tokens: int | None = None
    """Length at which sampling was cut: tells a truncated trace from one that states no judgement."""
    method: Method = field(default_factory=lambda: default_method())
    advantages: list[float] = field(default_factory=list, init=False)
    """Of the local traces of the latest call."""
    __name__ = "gcpo"  # how trainers label the reward

    def __call__(
        self,
        completions: Sequence[Any],
        pair: Sequence[int],
        side: Sequence[str],
        labels: Sequence[Sequence[str]],
        needs_verdicts: Sequence[bool],
        prompt_text: Sequence[str],
        same: Sequence[bool] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        resampled: Sequence[bool] | None = None,
        **_: Any,
    ) -> list[float]:
        """The reward of every local completion, in order; GCPO's are ratios in [0, 1] under the default options.

        Raises DataError when a pair lacks a side.
        """
        same = same or [False] * len(completions)
        texts = [completion_text(completion) for completion in completions]
        lengths = [len(ids) for ids in completion_ids] if completion_ids else [len(text.split()) for text in texts]
        local = []
        for i, text in enumerate(texts):
            row = {"pair": pair[i], "side": side[i], "same": same[i], "labels": labels[i]} | {
                "needs_verdicts": needs_verdicts[i],
                "prompt_text": prompt_text[i],
            }
            local.append(read_trace(text, row, lengths[i], self.max_tokens))
        traces, start = (self.gather or gather_from_ranks)(local)
        matches = play(traces, self.options, self.method)
        mine = slice(start, start + len(local))
        self.advantages = _in_order(traces, {n: (match.advantage_w, match.advantage_l) for n, match in matches.items()})[mine]
        if log_metric is not None:
            values = figures(matches) | ({"resampled": sum(resampled) / len(resampled)} if resampled else {})
            for name, value in values.items():
                log_metric(name, value)
        return _in_order(traces, {n: (match.ratio_w, match.ratio_l) for n, match in matches.items()})[mine]


def default_method() -> Method:
    """The paper's: GCPO."""
    made: Method = create("pair_learning", Component("gcpo"))
    return made


def read_trace(text: str, row: Mapping[str, Any], num_tokens: int, max_tokens: int | None) -> ReadTrace:
    """The trace as the reward sees it. row: the columns `pair side same labels needs_verdicts prompt_text` of `rows.PairRows`."""
    outcome = outcome_of(text, row, truncated=max_tokens is not None and num_tokens >= max_tokens)
    score, code = (outcome.score, "") if isinstance(outcome, Judgement) else (math.nan, outcome.code)
    return ReadTrace(int(row["pair"]), row["side"], bool(row["same"]), score, code, num_tokens)


def outcome_of(text: str, row: Mapping[str, Any], truncated: bool) -> Outcome:
    """What Phi reads in an answer to the question of a row."""
    return parse(
        text,
        len(row["labels"]),
        labels=row["labels"],
        needs_verdicts=row["needs_verdicts"],
        truncated=truncated,
        prompt_text=row["prompt_text"],
    )


def completion_text(completion: Any) -> str:
    """The text of a completion: TRL gives a list of messages for conversational prompts, ms-swift the string itself."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def gather_from_ranks(local: list[ReadTrace]) -> tuple[list[ReadTrace], int]:
    """The traces of all ranks in rank order, and where the local ones begin; the local ones alone where there is one process."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return local, 0
    parts: list[list[ReadTrace]] = [[] for _ in range(torch.distributed.get_world_size())]
    torch.distributed.all_gather_object(parts, local)
    return [trace for part in parts for trace in part], sum(map(len, parts[: torch.distributed.get_rank()]))


def play(traces: Sequence[ReadTrace], options: RewardOptions, method: Method | None = None) -> dict[int, JudgedPair]:
    """Every pair of the generation batch with its rewards. method: None = GCPO. Raises DataError when a pair lacks a side."""
    method = method or default_method()
    sides: dict[int, dict[str, list[ReadTrace]]] = {}
    for trace in traces:
        sides.setdefault(trace.pair, {"w": [], "l": []})[trace.side].append(trace)
    for number, both in sides.items():
        if len(both["w"]) != len(both["l"]):
            raise DataError(
                f"pair {number} has {len(both['w'])} traces of the preferred edit and {len(both['l'])} of the other in this generation "
                "batch; both rows must meet in it: keep them adjacent, do not shuffle rows, make the batch a multiple of 2 x num_traces"
            )
    rewards = {number: _rewards(both["w"], both["l"], options, method) for number, both in sides.items()}
    if options.skip_flat_groups:
        rewards = _without_flat(rewards, method)
    return {number: _match(sides[number], *rewards[number], method) for number in sides}


def _rewards(
    winners: Sequence[ReadTrace], losers: Sequence[ReadTrace], options: RewardOptions, method: Method
) -> tuple[torch.Tensor, torch.Tensor]:
    """Of both sides of a pair, each `[N]`."""
    tau_w, tau_l = _scores(winners), _scores(losers)
    for side, opponents in (("preferred", tau_l), ("other", tau_w)):
        if not bool(gcpo.has_opponent(opponents)):
            logger.warning("pair %d: no trace of its opponent parsed, the %s edit's traces earn nothing by it", winners[0].pair, side)
    if winners[0].same:
        assert options.same_tolerance is not None, "'same' pairs are only read when same_tolerance is set"
        reward_w = gcpo.closeness_ratio(tau_w, tau_l, options.same_tolerance)
        reward_l = gcpo.closeness_ratio(tau_l, tau_w, options.same_tolerance)
    else:
        reward_w, reward_l = method.rewards(tau_w, tau_l)
    penalty, added = options.length_penalty / 1000, method.needs.format_reward
    return (
        reward_w[0] + added * ~tau_w[0].isnan() - penalty * _lengths(winners),
        reward_l[0] + added * ~tau_l[0].isnan() - penalty * _lengths(losers),
    )


def _match(both: Mapping[str, Sequence[ReadTrace]], reward_w: torch.Tensor, reward_l: torch.Tensor, method: Method) -> JudgedPair:
    advantage_w, advantage_l = advantages(reward_w[None], reward_l[None], method.needs)
    groups = _groups(reward_w, reward_l, method)
    return JudgedPair(tuple(both["w"]), tuple(both["l"]), reward_w, reward_l, advantage_w[0], advantage_l[0], groups)


def _groups(reward_w: torch.Tensor, reward_l: torch.Tensor, method: Method) -> tuple[torch.Tensor, ...]:
    return (reward_w, reward_l) if method.needs.group == "image" else (torch.cat([reward_w, reward_l]),)


def _without_flat(rewards: dict[int, tuple[torch.Tensor, torch.Tensor]], method: Method) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """The rewards scaled by groups / groups with a gradient; unchanged when no group has one."""
    groups = [group for both in rewards.values() for group in _groups(*both, method)]
    scale = len(groups) / max(sum(not _is_constant(group) for group in groups), 1)
    return {number: (reward_w * scale, reward_l * scale) for number, (reward_w, reward_l) in rewards.items()}


def is_flat(match: JudgedPair) -> bool:
    """Whether a pair has no gradient."""
    return all(map(_is_constant, match.groups))


def _is_constant(group: torch.Tensor) -> bool:
    return bool((group == group[0]).all())


def figures(matches: dict[int, JudgedPair]) -> dict[str, float]:
    """What the batch looked like, under the names that `metrics.jsonl` carries; every share in [0, 1].

    Figures that do not exist (no pair parsed) are left out rather than invented.
    """
    traces = [trace for match in matches.values() for trace in (*match.winners, *match.losers)]
    ranked = [match for match in matches.values() if not match.winners[0].same]
    codes = Counter(trace.code for trace in traces)
    advantage = torch.cat([side for match in matches.values() for side in (match.advantage_w, match.advantage_l)])
    lengths = torch.cat([_lengths(side) for match in matches.values() for side in (match.winners, match.losers)])
    values = {
        "parse_rate": codes[""] / len(traces),
        **{f"failed/{code}": codes[code] / len(traces) for code in FAILURE_CODES},
        "flat_groups": _mean([float(_is_constant(group)) for match in matches.values() for group in match.groups]),
        "weighted_advantage": gcpo.weighted_advantage(advantage, lengths),
        "trace_tokens": float(lengths.mean()),
        "score_mean": _mean([trace.score for trace in traces if not trace.code]),
    }
    if ranked:
        tau_w = torch.cat([_scores(match.winners) for match in ranked])
        tau_l = torch.cat([_scores(match.losers) for match in ranked])
        accuracy, tied = gcpo.pair_accuracy(tau_w, tau_l)
        values |= {
            "win_ratio": float(torch.stack([match.ratio_w for match in ranked]).mean()),
            "loss_ratio": float(torch.stack([match.ratio_l for match in ranked]).mean()),
            "pair_accuracy": accuracy,
            "pair_ties": tied,
            "trace_ties": gcpo.tie_share(tau_w, tau_l),
            "no_opponent": float((~gcpo.has_opponent(tau_w)).sum() + (~gcpo.has_opponent(tau_l)).sum()),
        }
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _in_order(traces: Sequence[ReadTrace], values: Mapping[int, tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """The value of every trace: the n-th trace of a side has the side's n-th one."""
    left = {(n, side): iter(value.tolist()) for n, both in values.items() for side, value in zip("wl", both, strict=True)}
    return [next(left[trace.pair, trace.side]) for trace in traces]


def _scores(traces: Sequence[ReadTrace]) -> torch.Tensor:
    """`[1, N]`: one pair."""
    return torch.tensor([[trace.score for trace in traces]])


def _lengths(traces: Sequence[ReadTrace]) -> torch.Tensor:
    """`[N]`, tokens."""
    return torch.tensor([float(trace.num_tokens) for trace in traces])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
