"""The one reward function of GCPO: completions in, win and loss ratios out, on any number of processes.

A trainer groups traces by image (plain GRPO groups) and calls a reward function with its local completions. What GCPO adds is
that the two images of a human pair reward each other, and they may lie on different ranks. So the function parses what is
local, gathers (pair, side, score) from all ranks, and returns the ratios of the local traces; the trainer then subtracts the
group mean, which gives the advantages of arXiv 2604.27505, section 3.2. TRL's GRPOTrainer and ms-swift call it unchanged.

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

from editr1.errors import DataError
from editr1.judge.parse import parse
from editr1.objectives import gcpo
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
    """A pair with all its traces: scores and ratios of both sides, each `[N]`."""

    winners: tuple[ReadTrace, ...]
    losers: tuple[ReadTrace, ...]
    ratio_w: torch.Tensor
    ratio_l: torch.Tensor


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
        """The ratio of every local completion, in order, each in [0, 1] under the default options.

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
        matches = play(traces, self.options)
        if log_metric is not None:
            values = figures(matches) | ({"resampled": sum(resampled) / len(resampled)} if resampled else {})
            for name, value in values.items():
                log_metric(name, value)
        return _in_order(traces, matches)[start : start + len(local)]


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


def play(traces: Sequence[ReadTrace], options: RewardOptions) -> dict[int, JudgedPair]:
    """Every pair of the generation batch with its ratios. Raises DataError when a pair lacks a side."""
    sides: dict[int, dict[str, list[ReadTrace]]] = {}
    for trace in traces:
        sides.setdefault(trace.pair, {"w": [], "l": []})[trace.side].append(trace)
    for number, both in sides.items():
        if len(both["w"]) != len(both["l"]):
            raise DataError(
                f"pair {number} has {len(both['w'])} traces of the preferred edit and {len(both['l'])} of the other in this generation "
                "batch; both rows must meet in it: keep them adjacent, do not shuffle rows, make the batch a multiple of 2 x num_traces"
            )
    matches = {number: _match(tuple(both["w"]), tuple(both["l"]), options) for number, both in sides.items()}
    return _without_flat(matches) if options.skip_flat_groups else matches


def _match(winners: tuple[ReadTrace, ...], losers: tuple[ReadTrace, ...], options: RewardOptions) -> JudgedPair:
    tau_w, tau_l = _scores(winners), _scores(losers)
    for side, opponents in (("preferred", tau_l), ("other", tau_w)):
        if not bool(gcpo.has_opponent(opponents)):
            logger.warning("pair %d: no trace of its opponent parsed, the %s edit's group gets advantage 0", winners[0].pair, side)
    if winners[0].same:
        assert options.same_tolerance is not None, "'same' pairs are only read when same_tolerance is set"
        ratio_w = gcpo.closeness_ratio(tau_w, tau_l, options.same_tolerance)
        ratio_l = gcpo.closeness_ratio(tau_l, tau_w, options.same_tolerance)
    else:
        rule = gcpo.WinRule(options.tie_credit, options.margin)
        ratio_w, ratio_l = gcpo.win_ratio(tau_w, tau_l, rule), gcpo.loss_ratio(tau_l, tau_w, rule)
    penalty = options.length_penalty / 1000
    return JudgedPair(winners, losers, ratio_w[0] - penalty * _lengths(winners), ratio_l[0] - penalty * _lengths(losers))


def _without_flat(matches: dict[int, JudgedPair]) -> dict[int, JudgedPair]:
    """The ratios scaled by groups / groups with a gradient; unchanged when no group has one."""
    groups = [ratio for match in matches.values() for ratio in (match.ratio_w, match.ratio_l)]
    num_active = sum(bool((ratio != ratio[0]).any()) for ratio in groups)
    scale = len(groups) / max(num_active, 1)
    return {n: JudgedPair(m.winners, m.losers, m.ratio_w * scale, m.ratio_l * scale) for n, m in matches.items()}


def is_flat(match: JudgedPair) -> bool:
    """Whether neither group of a pair has a gradient."""
    return all(bool((ratio == ratio[0]).all()) for ratio in (match.ratio_w, match.ratio_l))


def figures(matches: dict[int, JudgedPair]) -> dict[str, float]:
    """What the batch looked like, under the names that `metrics.jsonl` carries; every share in [0, 1].

    Figures that do not exist (no pair parsed) are left out rather than invented.
    """
    traces = [trace for match in matches.values() for trace in (*match.winners, *match.losers)]
    ranked = [match for match in matches.values() if not match.winners[0].same]
    codes = Counter(trace.code for trace in traces)
    groups = torch.cat([torch.stack([match.ratio_w, match.ratio_l]) for match in matches.values()])
    advantage = gcpo.advantages(groups).flatten()
    lengths = torch.cat([_lengths(side) for match in matches.values() for side in (match.winners, match.losers)])
    values = {
        "parse_rate": codes[""] / len(traces),
        **{f"failed/{code}": codes[code] / len(traces) for code in FAILURE_CODES},
        "flat_groups": gcpo.flat_share(groups),
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


def _in_order(traces: Sequence[ReadTrace], matches: dict[int, JudgedPair]) -> list[float]:
    """The ratio of every trace: the n-th trace of a side has the side's n-th ratio."""
    left = {(n, side): iter(ratio.tolist()) for n, match in matches.items() for side, ratio in (("w", match.ratio_w), ("l", match.ratio_l))}
    return [next(left[trace.pair, trace.side]) for trace in traces]


def _scores(traces: Sequence[ReadTrace]) -> torch.Tensor:
    """`[1, N]`: one pair."""
    return torch.tensor([[trace.score for trace in traces]])


def _lengths(traces: Sequence[ReadTrace]) -> torch.Tensor:
    """`[N]`, tokens."""
    return torch.tensor([float(trace.num_tokens) for trace in traces])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else math.nan
