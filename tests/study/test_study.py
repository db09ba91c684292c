"""A study as a command: what a recipe may say, in which order cells run, and that a second call has nothing left to do."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from editr1.bench.base import JudgedEdit
from editr1.cli import main
from editr1.config import to_plain
from editr1.errors import BackendError, ConfigError
from editr1.store import Run
from editr1.study.cells import Place, Task, estimate, run_all, stage_configs, tasks_left
from editr1.study.config import Cell, Claim, Config
from tiny_run import build_tiny_verifier

ROOT = Path(__file__).parents[2]
EVIDENCE = ROOT / "recipes" / "evidence.yaml"


def cells(**after: str | None) -> dict[str, Cell]:
    return {name: Cell("sft", "compact", after=before) for name, before in after.items()}


# --- what a recipe may say --------------------------------------------------------------------------


def test_a_cell_brings_what_it_starts_from() -> None:
    config = Config(cells(a=None, b="a", c="b", d=None))
    assert config.chosen(["c"]) == ("a", "b", "c")
    assert config.chosen([]) == ("a", "b", "c", "d")
    with pytest.raises(ConfigError, match="no cell 'e'"):
        config.chosen(["e"])


def test_circles_and_unknown_cells_are_refused() -> None:
    with pytest.raises(ValueError, match="circle"):
        Config(cells(a="b", b="a"))
    with pytest.raises(ValueError, match="no cell 'x'"):
        Config(cells(a="x"))
    with pytest.raises(ValueError, match="no cell 'y'"):
        Config(cells(a=None), claims=(Claim("E1", "m", (("a", "y"),)),))


def test_every_cell_of_the_evidence_builds_and_the_whole_fits_its_time(tmp_path: Path) -> None:
    place = Place(EVIDENCE, (), tmp_path)
    config = place.config()
    for name, cell in config.cells.items():
        made = stage_configs(place, config, 1, name)
        assert list(made) == [*cell.first, cell.stage]
        trained = made[cell.stage]
        assert (trained.output, trained.seed, trained.prompt_id) == (f"cells/{name}", 1, cell.prompt_id)
        trained.machine.accumulation(trained.batch_size if cell.stage == "sft" else trained.rows)
    assert list(stage_configs(place, config, 1, "data")) == list(config.data)
    assert {claim.id for claim in config.claims} == {"E1", "E2", "E2, one trace", "E3", "E4"}
    assert len(config.seeds) == 3
    assert estimate(config, tasks_left(place, config, config.seeds, config.chosen([])), 2) <= 90


def test_seeds_differ_in_data_and_cells_in_nothing_else(tmp_path: Path) -> None:
    place = Place(EVIDENCE, (), tmp_path)
    config = place.config()
    first, second = (stage_configs(place, config, seed, "data") for seed in (0, 1))
    assert first["tasks"].source.options["seed"] != second["tasks"].source.options["seed"]
    t, v = (to_plain(stage_configs(place, config, 0, name)["sft"]) for name in ("t", "v"))
    assert {key for key in t if t[key] != v[key]} == {"prompt_id", "target", "output"}
    assert stage_configs(place, config, 0, "tv_gcpo")["gcpo"].model == "{run}/cells/tv"


# --- order ------------------------------------------------------------------------------------------


def write_line(path: Path, text: str) -> list[str]:
    return [sys.executable, "-c", f"open({str(path)!r}, 'a').write({text!r} + chr(10))"]


def test_nothing_runs_before_what_it_needs(tmp_path: Path) -> None:
    config, place = Config(cells(b="a", a=None, c="b")), Place(EVIDENCE, (), tmp_path)
    tasks = [Task(seed, name) for name in ("c", "b", "a", "data") for seed in (0, 1)]
    log = tmp_path / "log"
    run_all(place, config, tasks, 3, lambda task: write_line(log, str(task)))
    done = log.read_text().split()
    assert sorted(done) == sorted(map(str, tasks))
    for seed in (0, 1):
        places = [done.index(f"seed{seed}/{name}") for name in ("data", "a", "b", "c")]
        assert places == sorted(places)


def test_a_failed_cell_stops_the_rest_and_says_where_to_look(tmp_path: Path) -> None:
    config, place = Config(cells(a=None, b="a")), Place(EVIDENCE, (), tmp_path)
    log = tmp_path / "log"

    def command(task: Task) -> list[str]:
        return write_line(log, str(task)) if task.cell == "data" else [sys.executable, "-c", "print('no such model'); raise SystemExit(2)"]

    with pytest.raises(BackendError, match=r"seed0/a failed with code 2: no such model .*seed0_a\.log"):
        run_all(place, config, [Task(0, "data"), Task(0, "a"), Task(0, "b")], 1, command)
    assert log.read_text().split() == ["seed0/data"]


# --- the whole --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student and GCPO on a handful of tasks, with an untrained verifier."""
    folder = tmp_path_factory.mktemp("recipe")
    verifier = build_tiny_verifier(folder / "verifier")
    data = yaml.safe_load((ROOT / "tests" / "stages" / "data_loop.yaml").read_text())
    machine = {"micro_batch": 2, "activation_checkpointing": False, "trackers": [], "progress": False}
    data["sft"] = {"model": str(verifier), "steps": 1, "batch_size": 2, "held_out_share": 0.25, "machine": machine}
    data["gcpo"] = {"steps": 1, "pairs_per_step": 1, "num_traces": 2, "generation": {"max_tokens": 6}, "machine": machine}
    data["study"] = {
        "seeds": [0, 1],
        "per_seed": ["tasks.source.options.seed=3{seed}"],
        "judging": {"num_pairs": 4, "num_traces": 2, "max_tokens": 6},
        "cells": {
            "direct": {"stage": "sft", "prompt_id": "compact_direct", "set": ["sft.target=score"]},
            "gcpo": {"stage": "gcpo", "prompt_id": "compact_direct", "after": "direct"},
        },
        "claims": [{"id": "X", "measure": "GCPO helps", "steps": [["direct", "gcpo"]]}],
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(data))
    return path


def told(arguments: list[str]) -> list[str]:
    """What a command that succeeds prints."""
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(arguments) == 0
    return out.getvalue().splitlines()


@dataclass(frozen=True)
class Finished:
    """A study that ran in two calls, undisturbed."""

    run: Path
    arguments: list[str]
    planned: list[str]
    half: list[str]
    whole: list[str]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, recipe: Path) -> Finished:
    run = tmp_path_factory.mktemp("study") / "runs"
    arguments = ["study", str(recipe), "--run", str(run), "--jobs", "1", "--seeds", "0"]
    planned = told([*arguments, "--dry-run"])
    half = told([*arguments, "--cells", "direct"])
    return Finished(run, arguments, planned, half, told([*arguments, "--out", str(run / "docs" / "small")]))


def test_a_study_runs_reports_and_is_not_repeated(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    run, arguments = finished.run, finished.arguments
    assert any("3 cells left" in line for line in finished.planned)
    assert [json.loads(line)["holds"] for line in finished.half[-2:]] == [None, None]
    claim, last = map(json.loads, finished.whole[-2:])
    assert claim["claim"] == "X"
    assert claim["why"].startswith("gcpo over direct ")  # measured; four pairs need not decide it
    assert (last["n"], last["holds"]) == (claim["holds"] is not None, claim["holds"])
    table = json.loads((run / "docs" / "small.json").read_text())
    assert [cell["cell"] for cell in table["cells"]] == ["direct", "gcpo"]
    assert (run / "docs" / "small.md").read_text().startswith("# Small")
    changed = ["--set", "sft.steps=2"]
    assert main([*arguments, *changed]) == 2
    assert "was made with sft.steps=1, now it is 2" in capsys.readouterr().err
    weights = run / "seed0" / "cells" / "gcpo" / "model.safetensors"
    before = weights.stat().st_mtime_ns
    assert main([*arguments, "--table", "only"]) == 0
    assert main(arguments) == 0
    assert "0 cells left" in capsys.readouterr().out
    assert weights.stat().st_mtime_ns == before


def test_a_study_that_was_killed_goes_on_and_ends_with_the_same_answers(tmp_path: Path, recipe: Path, finished: Finished) -> None:
    """SIGKILL after the first cell's training; then two processes share what is left."""
    arguments = ["study", str(recipe), "--seeds", "0"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-m", "editr1.cli", *arguments, "--run", str(killed), "--jobs", "1"], env=environment)
    deadline = time.monotonic() + 180
    while not (killed / "seed0" / "cells" / "direct" / "done.json").exists():
        assert process.poll() is None, "the process ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.kill()
    process.wait()
    told([*arguments, "--run", str(killed), "--jobs", "2"])
    for name in ("direct", "gcpo"):
        answers = [
            {row.key: row.value for row in Run.open(root / "seed0").read(f"bench_pairs_{name}", JudgedEdit)}
            for root in (killed, finished.run)
        ]
        assert answers[0] == answers[1]
    tables = [json.loads((root / "small.json").read_text()) for root in (killed, finished.run)]
    assert tables[0]["cells"] == tables[1]["cells"]
