"""Bad input gets one clear line on stderr and exit code 2."""

from __future__ import annotations

import dataclasses
import importlib
import json
import re
from pathlib import Path

import pytest

from editr1.cli import command_names, main
from editr1.commands import GROUPS
from editr1.config import available

RECIPE = Path(__file__).parent / "stages" / "data_loop.yaml"


def run(capsys: pytest.CaptureFixture[str], *argv: object) -> tuple[int, str, str]:
    code = main([str(arg) for arg in argv])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_stage_runs_from_the_command_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "tasks", "--config", RECIPE, "--run", tmp_path / "run")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "tasks: in 8, out 8, dropped 0"


def test_a_dry_run_prints_the_plan_and_does_nothing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, _ = run(capsys, "tasks", "--config", RECIPE, "--run", tmp_path / "run", "--dry-run", "--set", "tasks.random_share=0.5")
    assert code == 0
    assert "random half: share 0.5" in out
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("command", "overrides", "message"),
    [
        ("tasks", ["tasks.sorce=x"], "tasks: unknown key 'sorce'; did you mean 'source'?"),
        ("tasks", ["generate.editors.0.editor=stedy"], None),  # only read when its stage runs
        ("tasks", ["score.pool.0.prompt_id=compct"], "did you mean 'compact'?"),
        ("tasks", ["tasks.source=foldr"], "did you mean 'folder'?"),
        ("tasks", ["tasks.source.id=folder", "tasks.source.options={path: /nowhere}"], "there is no folder '/nowhere'"),
        ("tasks", ["tasks.source.options.nmu=3"], "unknown option 'nmu'; did you mean 'num'?"),
        ("decompose", [], "there is no run at"),
        ("tasks", ["demoo.x=1"], "unknown section 'demoo'"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, command: str, overrides: list[str], message: str | None
) -> None:
    sets = [arg for override in overrides for arg in ("--set", override)]
    code, _, err = run(capsys, command, "--config", RECIPE, "--run", tmp_path / "run", *sets)
    if message is None:
        assert code == 0
        return
    assert code == 2
    assert message in err
    assert err.startswith(f"editr1 {command}: ")
    assert err.count("\n") == 1


def test_an_unknown_editor_is_named_with_those_that_exist(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    for command in ("tasks", "decompose"):
        assert run(capsys, command, "--config", RECIPE, "--run", tmp_path / "run")[0] == 0
    code, _, err = run(capsys, "generate", "--config", RECIPE, "--run", tmp_path / "run", "--set", "generate.editors.0.editor.id=kontex")
    assert code == 2
    assert "unknown component 'kontex' of kind 'editors'" in err


def test_a_run_of_another_version_and_a_missing_recipe_are_named(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run(capsys, "tasks", "--config", RECIPE, "--run", run_dir)
    (run_dir / "env.json").write_text(json.dumps({"schema": 0}))
    code, _, err = run(capsys, "decompose", "--config", RECIPE, "--run", run_dir)
    assert (code, err.count("\n")) == (2, 1)
    assert "schema version 0, this program reads 2" in err
    code, _, err = run(capsys, "tasks", "--config", tmp_path / "none.yaml", "--run", run_dir)
    assert (code, err.count("\n")) == (2, 1)


def test_an_unfinished_stage_is_not_mistaken_for_a_small_one(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    run(capsys, "tasks", "--config", RECIPE, "--run", run_dir)
    (run_dir / "01_tasks" / "counts.json").unlink()
    code, _, err = run(capsys, "decompose", "--config", RECIPE, "--run", run_dir)
    assert code == 2
    assert "unfinished; run (again): editr1 tasks" in err


def test_help_lists_every_command_once_in_the_order_of_the_loop(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--help"])
    listed = re.findall(r"^  ([a-z][a-z-]*)  +\S", capsys.readouterr().out, re.MULTILINE)
    assert sorted(listed) == command_names()
    loop = ["tasks", "decompose", "generate", "score", "inspect", "sft", "pairs", "gcpo", "edit-rl", "evaluate", "report"]
    assert [name for name in listed if name in loop] == loop


def test_every_command_has_a_place_in_the_overview_and_nothing_else_is_one() -> None:
    assert sorted(name for names in GROUPS.values() for name in names) == command_names()


def test_help_tells_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    told = {"annotate": ("--port PORT (default: 8765)", "--seed SEED (default: 0)"), "serve": ("needs --token (default: 127.0.0.1)",)}
    for command, lines in told.items():
        with pytest.raises(SystemExit):
            main([command, "--help"])
        said = " ".join(capsys.readouterr().out.split())
        assert all(line in said for line in lines)


def test_every_stage_is_a_command_whose_help_is_its_docstring(capsys: pytest.CaptureFixture[str]) -> None:
    for name in available("stages"):
        with pytest.raises(SystemExit):
            main([name.replace("_", "-"), "--help"])
        shown = capsys.readouterr().out
        stage = importlib.import_module(f"editr1.stages.{name}")
        assert stage.__doc__.strip() in shown
        assert ("--engine" in shown) == ("engine" in {field.name for field in dataclasses.fields(stage.Config)})


def test_bench_trains_nothing_and_names_the_command_that_does(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "bench", "recipes/evidence.yaml", "--run", tmp_path / "run")
    assert code == 2
    assert "editr1 study recipes/evidence.yaml" in err
    assert not (tmp_path / "run").exists()


def test_the_old_section_of_a_study_is_not_silently_ignored(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    recipe = tmp_path / "old.yaml"
    recipe.write_text("bench: {cells: {}}\n")
    code, _, err = run(capsys, "study", recipe, "--run", tmp_path / "run")
    assert code == 2
    assert "unknown section 'bench'" in err
