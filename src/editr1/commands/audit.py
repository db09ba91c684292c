"""Probe a judge: sanity, stability, tricks, and what bad principles do to it.

    editr1 audit --run runs/demo --checkpoint runs/demo/08_rrm_gcpo --prompt compact
    editr1 audit --table edits.jsonl --base-url http://localhost:8000/v1 --model Qwen2.5-VL-7B-Instruct --threshold 0.8
    editr1 audit --run runs/demo --checkpoint runs/demo/08_rrm_gcpo --prompt compact --perturb
    editr1 audit --table edits.jsonl --judge viescore --model gpt-4.1

Exit code: 0 every law holds on the wanted share of edits, 1 some law does not, 2 bad input. --perturb reports and judges nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from editr1.audit.cases import Case, Judge, cases_from_run, cases_from_table, with_principles
from editr1.audit.perturb import KINDS, PairOfCases, PerturbCase, run_perturbation
from editr1.audit.probes import PROBES
from editr1.audit.run import THRESHOLD, ProbeResult, find_probes, run_audit
from editr1.commands._judge import add_judge_arguments, component_judge, decomposer, judge_vlm, reward_model
from editr1.errors import ConfigError, DataError
from editr1.judge.prompts import score_traits
from editr1.schema import Metric, Quadruple
from editr1.store import Run, preference_pairs, quadruples

EXIT_BROKEN = 1
SHOWN_BROKEN = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--run", type=Path, metavar="DIR", help="run directory with principles and candidates; the figures are added to it")
    where.add_argument("--table", type=Path, metavar="FILE", help="CSV or JSONL: source, edited, instruction[, principles]")
    parser.add_argument("--judge", metavar="YAML", help="a judge component such as viescore, in place of the RRM; takes the model below")
    add_judge_arguments(parser)
    parser.add_argument("--edits", type=int, default=100, help="edits to probe, one a task (default: 100)")
    parser.add_argument("--probes", default="", metavar="A,B", help=f"only these of {', '.join(probe.name for probe in PROBES)}")
    parser.add_argument(
        "--threshold", type=float, default=THRESHOLD, help=f"share of edits on which a law must hold (default: {THRESHOLD})"
    )
    parser.add_argument("--perturb", action="store_true", help="damage the principles and report what moves, in place of the probes")
    parser.add_argument("--amount", type=int, default=1, help="principles to damage in each set (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def main(args: argparse.Namespace) -> int:
    if args.perturb:
        return _perturb(args)
    if not 0.0 < args.threshold <= 1.0:
        raise ConfigError(f"--threshold is {args.threshold:g}; expected a share above 0, at most 1")
    probes = find_probes([name for name in args.probes.split(",") if name])
    cases = cases_from_run(_run(args), args.edits, args.seed) if args.run else cases_from_table(args.table, args.edits, args.seed)
    judge, cases = _judge(args, cases)
    results = run_audit(judge, cases, seed=args.seed, probes=probes)
    metrics = [result.metric(args.threshold) for result in results]
    _keep(args, metrics, "audit.json", [_details(result, args.threshold) for result in results])
    if args.json:
        _say(json.dumps({"threshold": args.threshold, "probes": [_details(result, args.threshold) for result in results]}, indent=2))
    else:
        for result, metric in zip(results, metrics, strict=True):
            _say(*_lines(result, metric))
    return EXIT_BROKEN if any(metric.holds is False for metric in metrics) else 0


def _perturb(args: argparse.Namespace) -> int:
    if not args.run:
        raise ConfigError("--perturb needs --run: it compares with the run's pairs and inspections")
    run = _run(args)
    cases, pairs = _perturb_cases(run, args.edits)
    judge = component_judge(args) if args.judge else reward_model(args, judge_vlm(args))
    results = run_perturbation(judge, cases, pairs, kinds=KINDS, amount=args.amount, seed=args.seed)
    metrics = [metric for result in results for metric in result.metrics()]
    _keep(args, metrics, "propagation.json", [_as_json(metric) for metric in metrics])
    if args.json:
        _say(json.dumps({"amount": args.amount, "figures": [_as_json(metric) for metric in metrics]}, indent=2))
    else:
        _say(f"{len(cases)} edits, {len(pairs)} pairs, {args.amount} damaged principles a set", *(_figure(metric) for metric in metrics))
    return 0


def _run(args: argparse.Namespace) -> Run:
    return Run.open(args.run, create=False)


def _judge(args: argparse.Namespace, cases: list[Case]) -> tuple[Judge, list[Case]]:
    """The judge, and the cases with principles where it wants them; an edit that cannot be decomposed is left out and told."""
    if args.judge:
        return component_judge(args), cases
    vlm = judge_vlm(args)
    model = reward_model(args, vlm)
    if not score_traits(args.prompt).shows_principles or all(case.item.principles for case in cases):
        return model, cases
    made = decomposer(args, vlm).decompose([(case.item.source, case.item.instruction) for case in cases], args.seed)
    known = {case.id: case.item.principles or found.principles for case, found in zip(cases, made, strict=True)}
    usable = {key: principles for key, principles in known.items() if principles}
    if len(usable) < 2:
        raise DataError(
            f"only {len(usable)} of {len(cases)} edits could be decomposed (the last fault: {made[-1].problem}); name a --decomposer"
        )
    if len(usable) < len(cases):
        print(f"audit: {len(cases) - len(usable)} of {len(cases)} edits could not be decomposed and are left out", file=sys.stderr)  # noqa: T201
    return model, with_principles(cases, usable)


def _perturb_cases(run: Run, limit: int) -> tuple[list[PerturbCase], list[PairOfCases]]:
    """Held-out pairs and their edits where the run has pairs, at most `limit` edits; else the first `limit` candidates."""
    gold = {row.quadruple_id: row.gold for row in run.read("05_inspections")} if run.has("05_inspections") else {}
    wanted: dict[str, Quadruple] = {}
    pairs: list[PairOfCases] = []
    for pair in preference_pairs(run, "held_out") if run.has("07_pairs") else ():
        if len(wanted) + 2 > limit:
            break
        for candidate in (pair.a, pair.b):
            wanted.setdefault(candidate.id, Quadruple(pair.task, pair.principles, candidate))
        pairs.append(PairOfCases(pair.a.id, pair.b.id, pair.label, pair.task.id))
    if not wanted:
        wanted = {quadruple.id: quadruple for _, quadruple in zip(range(limit), quadruples(run), strict=False)}
    if not wanted:
        raise DataError(f"{run.dir} holds neither pairs nor candidates; run the stages up to generate first")
    return [_perturb_case(run, quadruple, gold.get(quadruple.id)) for quadruple in wanted.values()], pairs


def _perturb_case(run: Run, quadruple: Quadruple, gold: tuple[bool, ...] | None) -> PerturbCase:
    from editr1.judge.item import RewardItem

    task = quadruple.task
    source, edited = run.images.get(task.source), run.images.get(quadruple.candidate.image)
    return PerturbCase(RewardItem(source, edited, task.instruction, quadruple.principles, quadruple.id), task.id, gold)


def _keep(args: argparse.Namespace, metrics: Sequence[Metric], name: str, details: list[dict[str, Any]]) -> None:
    """Adds the figures to the run, where there is one."""
    if args.run:
        run = _run(args)
        for metric in metrics:
            run.add_metric(metric)
        run.write_json(name, details)


def _details(result: ProbeResult, threshold: float) -> dict[str, Any]:
    broken = [{"edit": case.case_id, "scores": list(case.scores)} for case in result.broken]
    return {
        "law": result.probe.law_in_words,
        **_as_json(result.metric(threshold)),
        "not_applicable": result.num_not_applicable,
        "broken": broken,
    }


def _as_json(metric: Metric) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "n", "num_unscored", "p_value", "goal", "holds")
    return {name: getattr(metric, name) for name in names}


def _lines(result: ProbeResult, metric: Metric) -> list[str]:
    mark = "UNSCORED" if metric.holds is False and metric.value is None else {True: "holds", False: "BROKEN", None: "-"}[metric.holds]
    share = "no case" if metric.value is None else f"{metric.value:6.1%} [{metric.low:.1%}, {metric.high:.1%}]"
    extra = f", {result.num_unscored} unscored" * bool(result.num_unscored) + f", {result.num_not_applicable} not applicable" * bool(
        result.num_not_applicable
    )
    lines = [f"{mark:8} {result.probe.name:17} {share:24} of {result.n}{extra}: {result.probe.law_in_words}"]
    if metric.holds is False:
        shown = (f"{case.case_id} ({', '.join(f'{score:.1f}' for score in case.scores)})" for case in result.broken[:SHOWN_BROKEN])
        lines += [f"         broken by {'; '.join(shown)}"] * bool(result.broken)
    return lines


def _figure(metric: Metric) -> str:
    interval = "" if metric.low is None or metric.high is None else f" [{metric.low:+.3f}, {metric.high:+.3f}]"
    p_value = "" if metric.p_value is None else f" p={metric.p_value:.4f}"
    return f"{metric.name:46} {metric.value:+.3f}{interval}{p_value} (n={metric.n})"


def _say(*lines: str) -> None:
    for line in lines:
        print(line, flush=True)  # noqa: T201
