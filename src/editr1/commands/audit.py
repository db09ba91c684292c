"""How far a judge can be trusted, as text, JSON, figures of the run or a page: `audit`."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from editr1.audit.perturb import FIGURES, KINDS, AuditRecord, PairOfCases, PerturbCase, keep, kept, label_of, run_perturbation
from editr1.audit.probes import (
    PROBES,
    THRESHOLD,
    Case,
    ProbeRecord,
    cases_from_run,
    cases_from_table,
    find_probes,
    item_of,
    run_probes,
    with_principles,
)
from editr1.commands._judge import (
    add_judge_arguments,
    add_model_arguments,
    add_rrm_arguments,
    asked,
    judge_component,
    make_judge,
    reward_model,
    rrm_vlm,
    say,
    template,
    vlm_component,
)
from editr1.errors import ConfigError, DataError
from editr1.judge.item import NUM_FIRST, Judge, RewardItem, check_answers
from editr1.judge.rrm import RewardModel
from editr1.schema import Metric, Quadruple
from editr1.store import Run, commit, held_out_share, preference_pairs, quadruples
from editr1.store._files import write_atomic

EXIT_BROKEN = 1
SHOWN_BROKEN = 3


def add_audit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--run", type=Path, metavar="DIR", help="run directory with principles and candidates; the figures are added to it")
    where.add_argument("--table", type=Path, metavar="FILE", help="CSV or JSONL: source, edited, instruction[, principles]")
    add_judge_arguments(parser, None)
    add_model_arguments(parser)
    add_rrm_arguments(parser)
    add("--label", help="names the judge in the run's figures (default: its checkpoint's folder, its model or its id)")
    add("--edits", type=int, default=100, help="edits to probe, one a task (default: 100)")
    add("--probes", default="", metavar="A,B", help=f"only these of {', '.join(probe.name for probe in PROBES)}")
    add("--threshold", type=float, default=THRESHOLD, help=f"share of edits on which a law must hold (default: {THRESHOLD})")
    add("--perturb", action="store_true", help="damage the principles and report what moves, in place of the probes")
    add("--amount", type=int, default=1, help="principles to damage in each set (default: 1)")
    add("--page", type=Path, metavar="FILE", help="probe, perturb, and write a Markdown page of the run's audits")
    add("--json", action="store_true", help="print one JSON object")


def run_audit(args: argparse.Namespace) -> int:
    """Probe a judge: sanity, stability, tricks, and what bad principles do to it.

        editr1 audit --run runs/demo --checkpoint runs/demo/08_rrm_gcpo
        editr1 audit --table edits.jsonl --base-url http://localhost:8000/v1 --model Qwen2.5-VL-7B-Instruct --threshold 0.8
        editr1 audit --run runs/demo --checkpoint runs/demo/08_rrm_gcpo --perturb
        editr1 audit --run runs/demo --checkpoint runs/demo/08_rrm_gcpo --page docs/results/audit.md
        editr1 audit --table edits.jsonl --judge viescore --model gpt-4.1

    --page does both and writes a Markdown page of all judges that were audited in this run. Exit code: 0 every law holds on the wanted
    share of edits, 1 some law does not, 2 bad input. --perturb alone reports and judges nothing.
    """
    if not args.run and (args.perturb or args.page):
        raise ConfigError("--perturb and --page need --run: they compare with the run's pairs and inspections, and keep what they find")
    if not 0.0 < args.threshold <= 1.0:
        raise ConfigError(f"--threshold is {args.threshold:g}; expected a share above 0, at most 1")
    record = _begin(args)
    run = Run.open(args.run, create=False) if args.run else None
    probes, cases = [], []
    if not args.perturb:
        probes = find_probes([name for name in args.probes.split(",") if name])
        cases = cases_from_run(run, args.edits, args.seed) if run else cases_from_table(args.table, args.edits, args.seed)
    damaged, pairs = _perturb_cases(run, args.edits) if run and (args.perturb or args.page) else ([], [])
    judge = make_judge(args, rrm_vlm(args) if vlm_component(args) else None) if args.judge else reward_model(args, rrm_vlm(args))
    if not args.judge:
        cases = _decomposed(judge, cases, args.seed)
    _check_first(judge, [case.item for case in cases or damaged], args.seed)
    if cases:
        found = run_probes(judge, cases, seed=args.seed, probes=probes, threshold=args.threshold)
        edits = f"Probes on {len(cases)} edits{' of held-out tasks' * bool(run and held_out_share(run))}"
        record = replace(record, edits=edits, probes=tuple(found))
    if damaged:
        propagation, perturbed = _perturb(args, judge, damaged, pairs)
        record = replace(record, perturbed=perturbed, propagation=tuple(propagation))
    if run:
        keep(record, run)
    if run and args.page:
        write_atomic(args.page, template("audit.md").render(records=kept(run), run=args.run.resolve().name, figures=FIGURES).encode())
    _show(args, record)
    return EXIT_BROKEN if any(probe.metric.holds is False for probe in record.probes) else 0


def _begin(args: argparse.Namespace) -> AuditRecord:
    """The record with what is known before anything was judged."""
    component = vlm_component(args)
    model = component.options.get("path") or component.options.get("model") or component.id if component else ""
    if args.judge:
        name = judge_component(args).id
        return AuditRecord(label_of(args.label or name), f"{name}{f' on {model}' if model else ''}", args.command_line, commit())
    how = f"`{model}`, prompt {asked(args).prompt_id}, {args.traces} trace{'s' * (args.traces > 1)}{', expected score' * args.expected}"
    return AuditRecord(label_of(args.label or str(model)), how, args.command_line, commit())


def _perturb(
    args: argparse.Namespace, judge: Judge, cases: Sequence[PerturbCase], pairs: Sequence[PairOfCases]
) -> tuple[list[Metric], str]:
    """The figures of the error propagation, and what they were measured on."""
    results = run_perturbation(judge, cases, pairs, kinds=KINDS, amount=args.amount, seed=args.seed)
    measured = f"{args.amount} damaged principle{'s' * (args.amount > 1)} a set, {len(cases)} edits, {len(pairs)} pairs"
    if num_unscored := max(result.num_unscored for result in results):
        measured += f", up to {num_unscored} edits unscored"
    return [metric for result in results for metric in result.metrics], measured


def _check_first(judge: Judge, items: Sequence[RewardItem], seed: int) -> None:
    """A judge that answers none of a few edits is said before hundreds are asked about."""
    rewards = judge.score(items[:NUM_FIRST], seed)
    said = next((trace.text for reward in rewards for trace in reward.traces), rewards[0].answer)
    check_answers([None if reward.scored else reward.reason or "unscored" for reward in rewards], "edits", said)


def _decomposed(model: RewardModel, cases: list[Case], seed: int) -> list[Case]:
    """The cases with principles; an edit that cannot be decomposed is left out and told."""
    if not any(model.lacks_principles(case.item) for case in cases):
        return cases
    made = model.decompose([case.item for case in cases], seed)
    usable = {case.id: found.principles for case, found in zip(cases, made, strict=True) if found.principles}
    if len(usable) < 2:
        problem = next(found.problem for found in made if found.problem)
        raise DataError(f"only {len(usable)} of {len(cases)} edits could be decomposed (the first fault: {problem}); name a --decomposer")
    if len(usable) < len(cases):
        print(f"audit: {len(cases) - len(usable)} of {len(cases)} edits could not be decomposed and are left out", file=sys.stderr)  # noqa: T201
    return with_principles(cases, usable)


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
    return [PerturbCase(item_of(quadruple, run), quadruple.task.id, gold.get(key)) for key, quadruple in wanted.items()], pairs


def _show(args: argparse.Namespace, record: AuditRecord) -> None:
    if args.json:
        probes = [
            {"law": probe.law, **_as_json(probe.metric), "not_applicable": probe.num_not_applicable}
            | {"broken": [{"edit": case.case_id, "scores": list(case.scores)} for case in probe.broken]}
            for probe in record.probes
        ]
        figures = [_as_json(metric) for metric in record.propagation]
        found = {"threshold": args.threshold, "probes": probes} if probes else {}
        found |= {"amount": args.amount, "figures": figures} if figures else {}
        say(json.dumps(found, indent=2))
        return
    for probe in record.probes:
        say(*_lines(probe))
    if record.perturbed:
        say(record.perturbed, *(_figure(metric) for metric in record.propagation))


def _as_json(metric: Metric) -> dict[str, Any]:
    names = ("name", "value", "low", "high", "n", "num_unscored", "p_value", "goal", "holds")
    return {name: getattr(metric, name) for name in names}


def _lines(probe: ProbeRecord) -> list[str]:
    metric = probe.metric
    mark = "UNSCORED" if metric.holds is False and metric.value is None else {True: "holds", False: "BROKEN", None: "-"}[metric.holds]
    share = "no case" if metric.value is None else f"{metric.value:6.1%} [{metric.low:.1%}, {metric.high:.1%}]"
    left_out = {"unscored": metric.num_unscored, "not applicable": probe.num_not_applicable}
    extra = "".join(f", {count} {why}" for why, count in left_out.items() if count)
    lines = [f"{mark:8} {probe.name:17} {share:24} of {metric.n}{extra}: {probe.law}"]
    if metric.holds is False:
        shown = (f"{case.case_id} ({', '.join(f'{score:.1f}' for score in case.scores)})" for case in probe.broken[:SHOWN_BROKEN])
        lines += [f"         broken by {'; '.join(shown)}"] * bool(probe.broken)
    return lines


def _figure(metric: Metric) -> str:
    interval = "" if metric.low is None or metric.high is None else f" [{metric.low:+.3f}, {metric.high:+.3f}]"
    p_value = "" if metric.p_value is None else f" p={metric.p_value:.4f}"
    return f"{metric.name:46} {metric.value:+.3f}{interval}{p_value} (n={metric.n})"
