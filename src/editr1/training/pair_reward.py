"""The one reward function of learning from pairs: completions in, rewards out, on any number of processes.

A trainer groups traces by image and calls it with its local completions. The two images of a human pair reward each other and may lie on
different ranks, so what is parsed here is gathered from all of them; the trainer then subtracts the group mean, which for GCPO gives the
advantages of arXiv 2604.27505, section 3.2. TRL's GRPOTrainer and ms-swift call it unchanged.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from editr1.config import Component, create
from editr1.errors import DataError
from editr1.judge.parse import parse
from editr1.objectives import gcpo
from editr1.pair_learning.base import Method, Needs
from editr1.schema import FAILURE_CODES, Judgement
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
    """A pair with all its traces and their rewards (for GCPO ratios), `[N]` a side."""

    winners: tuple[ReadTrace, ...]
    losers: tuple[ReadTrace, ...]
    ratio_w: torch.Tensor
    ratio_l: torch.Tensor
    needs: Needs

    @property
    def groups(self) -> tuple[torch.Tensor, ...]:
        """The rewards of traces that are compared with each other: one group an image, or one for the pair."""
        return (self.ratio_w, self.ratio_l) if self.needs.group == "image" else (torch.cat([self.ratio_w, self.ratio_l]),)

    @property
    def advantages(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of both sides, each `[N]`."""
        both = torch.cat([gcpo.advantages(group[None], self.needs.scaled)[0] for group in self.groups])
        return both[: len(self.winners)], both[len(self.winners) :]


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
    """Of the local traces of the latest call; for trainers that cannot compare the traces of two rows."""
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

        Rows of a pair must meet in one generation batch: raises DataError when a pair lacks a side, and never trains on half of one.
        """
        texts = [completion_text(completion) for completion in completions]
        lengths = [len(ids) for ids in completion_ids] if completion_ids else [len(text.split()) for text in texts]
        columns = {"pair": pair, "side": side, "same": same or [False] * len(texts)}
        columns |= {"labels": labels, "needs_verdicts": needs_verdicts, "prompt_text": prompt_text}
        rows = [{name: values[i] for name, values in columns.items()} for i in range(len(texts))]
        local = [read_trace(text, row, length, self.max_tokens) for text, row, length in zip(texts, rows, lengths, strict=True)]
        traces, start = (self.gather or gather_from_ranks)(local)
        pairs = play(traces, self.options, self.method)
        mine = slice(start, start + len(local))
        self.advantages = _in_order(traces, {number: pair.advantages for number, pair in pairs.items()})[mine]
        if log_metric is not None:
            for name, value in (figures(pairs) | ({"resampled": sum(resampled) / len(resampled)} if resampled else {})).items():
                log_metric(name, value)
        return _in_order(traces, {number: (pair.ratio_w, pair.ratio_l) for number, pair in pairs.items()})[mine]


def default_method() -> Method:
    """The paper's: GCPO."""
    made: Method = create("pair_learning", Component("gcpo"))
    return made


def read_trace(text: str, row: Mapping[str, Any], num_tokens: int, max_tokens: int | None) -> ReadTrace:
    """The trace as the reward sees it. row: the columns `pair side same labels needs_verdicts prompt_text` of `rows.PairRows`."""
    cut = max_tokens is not None and num_tokens >= max_tokens
    told = {"labels": row["labels"], "needs_verdicts": row["needs_verdicts"], "prompt_text": row["prompt_text"]}
    outcome = parse(text, len(row["labels"]), truncated=cut, **told)
    score, code = (outcome.score, "") if isinstance(outcome, Judgement) else (math.nan, outcome.code)
    return ReadTrace(int(row["pair"]), row["side"], bool(row["same"]), score, code, num_tokens)


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
    pairs = {number: _judged(both["w"], both["l"], options, method) for number, both in sides.items()}
    if options.skip_flat_groups:  # groups / groups with a gradient; unchanged when none has one
        groups = [group for pair in pairs.values() for group in pair.groups]
        scale = len(groups) / max(sum(not _is_constant(group) for group in groups), 1)
        pairs = {number: replace(pair, ratio_w=pair.ratio_w * scale, ratio_l=pair.ratio_l * scale) for number, pair in pairs.items()}
    return pairs


def _judged(winners: Sequence[ReadTrace], losers: Sequence[ReadTrace], options: RewardOptions, method: Method) -> JudgedPair:
    tau_w, tau_l = _scores(winners), _scores(losers)
    for side, opponents in (("preferred", tau_l), ("other", tau_w)):
        if not bool(gcpo.has_opponent(opponents)):
            logger.warning("pair %d: no trace of its opponent parsed, the %s edit's traces earn nothing by it", winners[0].pair, side)
    if not winners[0].same:
        reward_w, reward_l = method.rewards(tau_w, tau_l)
    elif options.same_tolerance is None:
        raise DataError(f"pair {winners[0].pair} is called the same, of which nothing is learnt without reward.same_tolerance")
    else:
        reward_w = gcpo.closeness_ratio(tau_w, tau_l, options.same_tolerance)
        reward_l = gcpo.closeness_ratio(tau_l, tau_w, options.same_tolerance)
    penalty, added = options.length_penalty / 1000, method.needs.format_reward
    earned_w = reward_w[0] + added * ~tau_w[0].isnan() - penalty * _lengths(winners)
    earned_l = reward_l[0] + added * ~tau_l[0].isnan() - penalty * _lengths(losers)
    return JudgedPair(tuple(winners), tuple(losers), earned_w, earned_l, method.needs)


def is_flat(pair: JudgedPair) -> bool:
    """Whether a pair has no gradient."""
    return all(map(_is_constant, pair.groups))


def _is_constant(group: torch.Tensor) -> bool:
    return bool((group == group[0]).all())


def figures(pairs: Mapping[int, JudgedPair]) -> dict[str, float]:
    """What the batch looked like, under the names that `metrics.jsonl` carries; every share in [0, 1].

    Figures that do not exist (no pair parsed) are left out rather than invented.
    """
    traces = [trace for pair in pairs.values() for trace in (*pair.winners, *pair.losers)]
    ranked = [pair for pair in pairs.values() if not pair.winners[0].same]
    codes = Counter(trace.code for trace in traces)
    advantage = torch.cat([side for pair in pairs.values() for side in pair.advantages])
    flat = [float(_is_constant(group)) for pair in pairs.values() for group in pair.groups]
    values = {
        "parse_rate": codes[""] / len(traces),
        **{f"failed/{code}": codes[code] / len(traces) for code in FAILURE_CODES},
        "flat_groups": sum(flat) / len(flat),
        "weighted_advantage": gcpo.weighted_advantage(advantage, _lengths(traces)),
        "trace_tokens": float(_lengths(traces).mean()),
        "score_mean": float(_scores(traces).nanmean()),
    }
    if ranked:
        tau_w = torch.cat([_scores(pair.winners) for pair in ranked])
        tau_l = torch.cat([_scores(pair.losers) for pair in ranked])
        accuracy, tied = gcpo.pair_accuracy(tau_w, tau_l)
        values |= {
            "win_ratio": float(torch.stack([pair.ratio_w for pair in ranked]).mean()),
            "loss_ratio": float(torch.stack([pair.ratio_l for pair in ranked]).mean()),
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
