"""Judging a benchmark, or a folder of edits, into a table of the run: `bench`, `score-folder`."""

from __future__ import annotations

import argparse
import dataclasses
import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from editr1.bench.base import Benchmark, JudgedEdit, JudgedPair, Outcome
from editr1.bench.judges.base import ComparesPairs
from editr1.bench.own import LISTS
from editr1.commands._judge import (
    add_judge_arguments,
    add_model_arguments,
    add_output_arguments,
    judge_component,
    named,
    options,
    say,
    show,
    template,
    vlm_component,
    write_outcomes,
)
from editr1.config import Component, create, load, offered, to_plain
from editr1.errors import ChangedInputsError, ConfigError, DataError
from editr1.judge.item import Asking, Judge, asking, check_alive, check_answers
from editr1.measure.compare import between_run
from editr1.measure.edit_files import as_csv, as_parquet, edit_rows, shown_pictures, worst_and_best
from editr1.measure.judging import MAX_UNSCORED, Asker, CachedVLM, HasComparisons, Prices, check_unscored, judge_all, silence
from editr1.measure.metrics import pairwise_metrics, pairwise_outcomes
from editr1.schema import Metric
from editr1.store import Lane, Run, StageCounts
from editr1.store._files import write_atomic


def add_bench(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help=f"benchmark ({', '.join(offered('bench', 'build'))})")
    parser.add_argument("--root", type=Path, metavar="DIR", help="local copy of the benchmark's data")
    parser.add_argument("--edits", type=Path, metavar="DIR", help="folder of one editor's images, where the benchmark judges edits")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the benchmark; repeatable")
    add_judging_arguments(parser)
    add_output_arguments(parser)


def run_bench(args: argparse.Namespace) -> int:
    """Judge a benchmark with any judge: resumable, cached, with intervals and counts.

        editr1 bench editreward_editscore --root DATA --run RUN --judge editscore --model EditScore-7B --base-url URL
        editr1 bench pairs --run RUN --judge rrm --checkpoint RUN/08_rrm_gcpo
        editr1 bench gedit --root DATA --edits OUT/kontext --set language=cn --run RUN --judge viescore --model gpt-4.1 --repeats 3

    A benchmark whose data is absent says what to download and where to put it.
    """
    if args.name.endswith((".yaml", ".yml")):
        raise ConfigError(f"{args.name} is a recipe: reward models are trained and compared by: editr1 study {args.name} --run DIR")
    if args.name not in offered("bench", "build") and args.name in offered("bench", "read_stored"):
        raise ConfigError(
            f"{args.name} is published as stored outputs, without pictures to judge: editr1 aggregate PATH (see docs/benchmarks.md)"
        )
    given = {"root": args.root, "edits": args.edits, **options(args.set)}
    takes = inspect.signature(load("bench", args.name)).parameters  # an absent folder is left to the benchmark, which says what to download
    chosen = {key: value for key, value in given.items() if value is not None or key in takes}
    source = {"name": args.name, **{key: str(value) for key, value in chosen.items()}}
    if "run" in takes and args.run is not None:
        chosen.setdefault("run", args.run)  # left out of `source`: a run directory may be moved
    return judge_and_show(create("bench", Component(args.name, chosen)), source, args)


def add_score_folder(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="DIR")
    add("--root", type=Path, metavar="DIR", help="local copy of the benchmark whose edits these are (instructions, sources)")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="option of the layout, such as language=cn")
    add_judging_arguments(parser)
    add_output_arguments(parser)


def run_score_folder(args: argparse.Namespace) -> int:
    """Score a folder of edits: GEdit's layout, ImgEdit's layout, or a plain folder with an edits.jsonl or edits.csv.

    editr1 score-folder OUT/kontext --root GEDIT_DATA --run RUN --judge viescore --model gpt-4.1
    editr1 score-folder my_edits --run RUN --judge rrm --checkpoint checkpoints/rrm
    """
    name, found = recognise(args.folder, args.root)
    chosen = found | options(args.set)
    source = {"name": name, **{key: str(value) for key, value in chosen.items()}}
    return judge_and_show(create("bench", Component(name, chosen)), source, args)


def recognise(folder: Path, root: Path | None) -> tuple[str, dict[str, Any]]:
    """The benchmark id of the folder's layout and its options. Raises DataError for a folder of no known layout."""
    if not folder.is_dir():
        raise DataError(f"no folder {folder}")
    if any((folder / name).is_file() for name in LISTS):
        return "folder", {"root": folder}
    if (folder / "fullset").is_dir():
        return "gedit", {"root": root, "edits": folder}
    if root is not None and any(root.rglob("basic_edit.json")):
        return "imgedit", {"root": root, "edits": folder}
    raise DataError(
        f"{folder} has no known layout: expected {' or '.join(LISTS)}, GEdit's fullset/<task>/<language>/, "
        "or ImgEdit's <key>.png with --root naming the folder of basic_edit.json"
    )


def add_judging_arguments(parser: argparse.ArgumentParser) -> None:
    """Who judges, how, and what it may cost."""
    add = parser.add_argument
    add_judge_arguments(parser, "rrm")
    add_model_arguments(parser)
    add("--concurrency", type=int, default=8, help="edits judged at once at an endpoint (default 8)")
    add("--batch-size", type=int, default=1, help="edits a call, for a local checkpoint (default 1)")
    add(
        "--price", type=float, nargs=2, default=(0.0, 0.0), metavar=("PROMPT", "GENERATED"), help="money a million tokens, to show the cost"
    )
    add("--repeats", type=int, default=1, metavar="R", help="judge R times with other seeds and print the spread")
    add("--max-unscored", type=float, default=MAX_UNSCORED, help=f"stop above this share (default {MAX_UNSCORED})")
    add("--cache", type=Path, metavar="DIR", help="where replies are kept (default: cache/ of the run)")
    add("--decomposer", metavar="MODEL", help="model that writes principles which an edit lacks (default: the judge's own)")
    add("--decomposer-url", metavar="URL", help="its endpoint (default: --base-url)")
    add("--label", help="name of the judged table (default: the judge's id)")
    add("--seed", type=int, default=0)
    add("--dry-run", action="store_true", help="print what would be done and stop")


def judge_and_show(benchmark: Benchmark, source: dict[str, Any], args: argparse.Namespace) -> int:
    """Judges what is left to judge, prints the metrics and stores them with the outcomes. `source` says what was judged."""
    if args.run is None:
        raise ConfigError("give --run DIR: answers and replies are kept there, so that a stopped run continues")
    _check(args)
    run = Run.open(args.run)
    settings: dict[str, Any] = {"benchmark": source, "judge": judge_settings(args)}
    label = args.label or judge_name(judge_component(args).id)
    if args.dry_run:
        _say_plan(benchmark, settings, run, args)
        return 0
    vlm = make_vlm(args, run)
    component, models = _component(args), {} if vlm is None else {"vlm": vlm}
    models |= {"decomposer": create("vlm", _writer(args))} if args.decomposer else {}
    judge = create("judges", Component(component.id, component.options | models))
    if texts := getattr(judge, "texts", ""):  # published prompts that it read from files
        settings["judge"] |= {"texts": texts}
    name = f"bench_{benchmark.name}_{label}"
    ask = _Ask(benchmark, judge, run, settings, args, vlm.status if vlm else lambda: "")
    known = ask.first(name)
    if not args.json:
        _say_plan(benchmark, settings, run, args)
    repeats = [ask.once(name, repeat, {} if repeat else known) for repeat in range(args.repeats)]
    show(named([*repeats[0], *between_run(repeats)], label), args)
    if vlm and not args.json:
        say(f"{vlm.name}: {vlm.status()}")
    return 0


def _say_plan(benchmark: Benchmark, settings: Mapping[str, Any], run: Run, args: argparse.Namespace) -> None:
    sizes = f"{sum(1 for _ in benchmark.edits())} edits"
    if isinstance(benchmark, HasComparisons):
        sizes += f" in {sum(1 for _ in benchmark.comparisons())} pairs"
    say(f"{benchmark.name}: {sizes} x {args.repeats}, judge {json.dumps(settings['judge'])}, run {run.dir}")


def _check(args: argparse.Namespace) -> None:
    for name in ("repeats", "concurrency", "batch_size"):
        if getattr(args, name) < 1:
            raise ConfigError(f"--{name.replace('_', '-')} is {getattr(args, name)}; expected at least 1")
    if not 0 <= args.max_unscored <= 1:
        raise ConfigError(f"--max-unscored is {args.max_unscored:g}; expected a share in [0, 1]")
    if min(args.price) < 0:
        raise ConfigError(f"--price is {min(args.price):g}; expected 0 or above")


@dataclasses.dataclass(frozen=True)
class _Ask:
    """One judge about one benchmark, as often as the options say."""

    benchmark: Benchmark
    judge: Judge | ComparesPairs
    run: Run
    settings: dict[str, Any]
    args: argparse.Namespace
    status: Callable[[], str]

    def first(self, table: str) -> dict[str, JudgedEdit | JudgedPair]:
        """Answers about a few rows that the table lacks, before all are read through and asked; a judge that answers none is said at once.

        Raises UnscoredError, or what the judge's machine raises.
        """
        if self.args.max_unscored >= 1:
            return {}
        asker = Asker(self.judge, self.args.seed, self.status)
        known = {key for key, _ in self.run.keyed(table, asker.record)} if self.run.has(table) else set()
        rows = asker.first(item for item in self._items() if item.key not in known)
        said = next((row.text for row in rows if isinstance(row, JudgedEdit)), "")
        kind = "pairs" if isinstance(self.judge, ComparesPairs) else "edits"
        check_answers([silence(row) for row in rows], kind, said, "To judge all the same: --max-unscored 1")
        return {row.key: row for row in rows}

    def once(self, name: str, repeat: int, known: Mapping[str, JudgedEdit | JudgedPair]) -> list[Metric]:
        """The metrics of one repeat; its answers and outcomes stay in the run."""
        table = f"{name}_{repeat}" if repeat else name
        asker = Asker(self.judge, self.args.seed + repeat, self.status, known)
        lane = Lane(self.args.batch_size, 1 if self.args.checkpoint else self.args.concurrency)
        try:
            judged, counts = judge_all(self.run, table, self._items(), asker, settings=self.settings, lane=lane)
        except ChangedInputsError as error:
            raise DataError(f"{error.change}; give this judge, or what it judges now, a table of its own: --label NAME") from error
        self._say_dropped(table, counts)
        if not isinstance(self.judge, ComparesPairs):
            self._write_edits(table, judged)
        kind = "pairs" if isinstance(self.judge, ComparesPairs) else "edits"
        silent = [reason for row in judged.values() if (reason := silence(row)) is not None]
        check_unscored(silent, counts, kind, self.args.max_unscored)
        metrics, outcomes = self._numbers(judged)
        write_outcomes(self.run.dir / f"{table}.outcomes.jsonl", outcomes)
        return metrics

    def _items(self) -> Iterable[Any]:
        """What the judge is asked about."""
        if not isinstance(self.judge, ComparesPairs):
            return self.benchmark.edits()
        if not isinstance(self.benchmark, HasComparisons):
            raise ConfigError(f"benchmark {self.benchmark.name} has single edits and no pairs; judge {self.args.judge!r} compares pairs")
        return self.benchmark.comparisons()

    def _numbers(self, judged: Mapping[str, Any]) -> tuple[list[Metric], list[Outcome]]:
        if not isinstance(self.judge, ComparesPairs):
            return self.benchmark.metrics(judged, self.args.seed), self.benchmark.outcomes(judged)
        items = list(self._items())
        own = getattr(self.benchmark, "pair_metrics", None)  # numbers that only this benchmark has for judges of pairs
        found = pairwise_metrics(self.benchmark.name, items, judged)
        return found + (own(judged, self.args.seed) if own else []), pairwise_outcomes(items, judged)

    def _write_edits(self, table: str, judged: Mapping[str, JudgedEdit]) -> None:
        """Every edit by name, as a table and as a page."""
        place = f"{self.run.dir / table}.edits"
        rows, title = edit_rows(self.benchmark.edits(), judged), table.removeprefix("bench_")
        write_atomic(Path(f"{place}.csv"), as_csv(rows).encode())
        write_atomic(Path(f"{place}.parquet"), as_parquet(rows))
        worst, best = worst_and_best(self.benchmark.edits(), judged)
        known = {"title": title, "num_scored": sum(row.score is not None for row in rows), "judged": judged, "pictures_of": shown_pictures}
        write_atomic(Path(f"{place}.html"), template("edits.html").render(worst=worst, best=best, **known).encode())
        if not self.args.json:
            say(f"every edit: {place}.csv and .parquet, the worst and the best: {place}.html")

    def _say_dropped(self, table: str, counts: StageCounts) -> None:
        if counts.num_dropped and not self.args.json:
            reasons = ", ".join(f"{reason} {count}" for reason, count in counts.reasons.items())
            path = self.run.dir / table / "dropped.jsonl"
            say(f"{counts.num_dropped} of {counts.num_in} could not be shown to the judge ({reasons}) and count as unscored: {path}")


def judge_name(id: str) -> str:
    """A name for a judge of one's own: what `package.module:Name` names, or its module where that is only a factory.

    >>> judge_name("rrm"), judge_name("mylab.sharpness:build"), judge_name("mylab.judges:Sharpness")
    ('rrm', 'sharpness', 'Sharpness')
    """
    module, _, name = id.rpartition(":")
    return module.rpartition(".")[2] if name == "build" and module else name


def _component(args: argparse.Namespace) -> Component:
    """The judge as it is named; the RRM on a local checkpoint is asked as that was trained, unless --judge-set says otherwise."""
    judge, model = judge_component(args), vlm_component(args)
    if judge.id != "rrm" or model is None or model.id != "local":
        return judge
    how, plain = asking(model, judge.options.get("prompt_id"), judge.options.get("max_tokens")), Asking()
    own = {name: getattr(how, name) for name in ("prompt_id", "max_tokens") if getattr(how, name) != getattr(plain, name)}
    return Component(judge.id, own | judge.options)


def _writer(args: argparse.Namespace) -> Component:
    return Component("openai_api", {"model": args.decomposer, "base_url": args.decomposer_url or args.base_url})


def judge_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that a judge's answers depend on."""
    judge = _component(args)
    writer = {"decomposer": _writer(args)} if args.decomposer else {}
    return dict(to_plain({"id": judge.id, "options": judge.options, "vlm": vlm_component(args), **writer}))


def make_vlm(args: argparse.Namespace, run: Run) -> CachedVLM | None:
    """The model behind the judge with its cache; None for a judge that brings its own."""
    component = vlm_component(args)
    if component is None:
        return None
    if args.decomposer and component.id == "local":
        check_alive(create("vlm", _writer(args)))  # before weights are loaded
    return CachedVLM(create("vlm", component), args.cache or run.dir / "cache", Prices(*args.price))
