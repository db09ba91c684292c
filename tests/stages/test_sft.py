"""SFT on a tiny run: what is learnt, resume, and refusal of changed settings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from editr1.commands._judge import accepting
from editr1.errors import ChangedInputsError, ConfigError, DataError
from editr1.stages import sft
from editr1.store import Run
from editr1.training.options import Machine, Schedule
from killed import kill_after_three_points
from tiny_run import build_tiny_run, build_tiny_verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def config(verifier: Path, **changes: object) -> sft.Config:
    machine = Machine(micro_batch=2, activation_checkpointing=False, trackers=(), progress=False, save_every=2)
    base = {"steps": 4, "batch_size": 4, "prompt_id": "compact", "machine": machine}
    return sft.Config(model=str(verifier), schedule=Schedule(lr=1e-3, lr_matrices=2e-3, warmup_steps=1), **{**base, **changes})  # type: ignore[arg-type]


def test_sft_learns_writes_a_loadable_checkpoint_and_is_not_repeated(tmp_path: Path, verifier: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoProcessor

    run_dir = build_tiny_run(tmp_path / "run")
    first = sft.run(config(verifier, steps=12), run_dir)
    curve = Run.open(run_dir).curves("sft")
    assert [point["step"] for point in curve] == list(range(1, 13))
    assert curve[-1]["loss"] < curve[0]["loss"]
    AutoModelForImageTextToText.from_pretrained(first.path)
    AutoProcessor.from_pretrained(first.path)
    again = sft.run(config(verifier, steps=12), run_dir)
    assert (again.path, again.steps, again.seconds) == (first.path, 12, 0.0)
    with pytest.raises(DataError, match="was begun with steps=12"):
        sft.run(config(verifier, steps=13), run_dir)


def test_an_unknown_checkpoint_is_one_line(tmp_path: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    with pytest.raises(ConfigError, match="cannot load a processor"):
        sft.run(config(tmp_path / "nothing"), run_dir)


def test_settings_survive_as_json(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    sft.run(config(verifier, steps=1, target="score", prompt_id="compact_direct", output="06_scorer"), run_dir)
    assert json.loads((run_dir / "06_scorer" / "settings.json").read_text())["target"] == "score"
    assert Run.open(run_dir).curves("sft/06_scorer")


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(tmp_path: Path, verifier: Path) -> None:
    """SIGKILL between two checkpoints; weights, optimizer, random states and data order come out as if nothing had happened."""
    whole = sft.run(config(verifier, steps=7), build_tiny_run(tmp_path / "whole"))
    killed = build_tiny_run(tmp_path / "killed")
    code = (
        "import sys; from pathlib import Path; from test_sft import config; from editr1.stages import sft\n"
        "sft.run(config(Path(sys.argv[1]), steps=7), Path(sys.argv[2]))"
    )
    kill_after_three_points(code, [verifier, killed], Path(__file__).parent, killed / "metrics.jsonl")
    assert not (killed / "06_rrm_sft" / "done.json").exists()
    resumed = sft.run(config(verifier, steps=7), killed)
    assert (Path(resumed.path) / "model.safetensors").read_bytes() == (Path(whole.path) / "model.safetensors").read_bytes()
    losses = [[point["loss"] for point in Run.open(folder).curves("sft")] for folder in (tmp_path / "whole", killed)]
    assert losses[0] == losses[1]


def test_changed_inputs_are_refused_or_accepted_and_curves_never_mixed(tmp_path: Path, verifier: Path) -> None:
    run_dir, base = build_tiny_run(tmp_path / "run"), tmp_path / "base"
    shutil.copytree(verifier, base)
    sft.run(config(base, steps=3), run_dir)
    (base / "extra.json").write_text("{}")  # the checkpoint behind the same path is another one
    with pytest.raises(ChangedInputsError, match=r"content .*new run directory, or add --accept"):
        sft.run(config(base, steps=3), run_dir)
    assert accepting(lambda: sft.run(config(base, steps=2), run_dir), accept=True).steps == 2
    assert [point["step"] for point in Run.open(run_dir).curves("sft")] == [1, 2]
    aside = run_dir / ".aside" / "06_rrm_sft-1"
    assert json.loads((aside / "settings.json").read_text())["steps"] == 3
    assert len((aside / "metrics.jsonl").read_text().split("\n")[:-1]) == 3

    summary = run_dir / "05_inspections" / "counts.json"
    summary.write_text(json.dumps(json.loads(summary.read_text()) | {"digest": "0" * 64}))  # the table was made anew
    with pytest.raises(ChangedInputsError, match="input 05_inspections"):
        sft.run(config(base, steps=2), run_dir)
