"""What goes wrong is said at once and with a non-zero code; what was done before is said too."""

from __future__ import annotations

from pathlib import Path

import pytest

from browser import free_port
from editr1.cli import main
from editr1.errors import BackendError, ContentRefusedError
from editr1.judge.decompose import Decomposer
from editr1.judge.item import check_alive
from editr1.judge.rrm import RewardModel
from editr1.vlm import openai_api
from fake_endpoint import completion, serve

RECIPE = """
tasks:
  source: {id: "editr1.world.tasks:TaskSource", options: {num: 4}}
  engine: {progress: false}
sft: {model: m, batch_size: 8, machine: {micro_batch: 8}}
gcpo: {pairs_per_step: 4, num_traces: 2, machine: {micro_batch: 16}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


@pytest.mark.parametrize(("setting", "told"), [("sft.batch_size=12", "sft: 12 rows"), ("gcpo.num_traces=3", "gcpo: 24 rows")])
def test_arithmetic_that_a_later_stage_cannot_keep_is_found_before_the_first(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], setting: str, told: str
) -> None:
    assert main(["tasks", "--config", str(recipe), "--run", str(tmp_path / "run"), "--set", setting]) == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_processes_of_the_launch_are_counted_before_anything_is_read(
    recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert main(["tasks", "--config", str(recipe), "--run", str(tmp_path / "run")]) == 0  # it trains nothing
    assert main(["sft", "--config", str(recipe), "--run", str(tmp_path / "run")]) == 2
    assert "8 rows a step do not divide into 3 processes x machine.micro_batch 8" in capsys.readouterr().err


def test_a_finished_stage_says_that_nothing_was_asked(recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["tasks", "--config", str(recipe), "--run", str(tmp_path / "run")]
    assert main(arguments) == 0
    assert "finished before" not in capsys.readouterr().out
    assert main(arguments) == 0
    assert "finished before" in capsys.readouterr().out
    assert main([*arguments, "--set", "tasks.source.options.seed=1", "--accept"]) == 0
    assert "finished before" not in capsys.readouterr().out


def test_one_request_tells_whether_a_judge_and_its_decomposer_answer() -> None:
    def model(address: str) -> openai_api.OpenAIVLM:
        return openai_api.build("m", base_url=address, max_attempts=1)  # type: ignore[return-value]

    dead = model(f"http://127.0.0.1:{free_port()}/v1")
    with serve(lambda body: completion("hello")) as server:
        alive = model(server.url)
        check_alive(RewardModel(alive, decomposer=Decomposer(alive)))
        assert len(server.bodies) == 1  # one endpoint, asked once
        assert "max_tokens" in server.bodies[0]
        with pytest.raises(BackendError, match="is the server running"):
            check_alive(RewardModel(alive, decomposer=Decomposer(dead)))
    with pytest.raises(BackendError):
        check_alive(RewardModel(dead))


def test_who_refuses_the_question_is_there_and_a_judge_of_ones_own_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(*_: object, **__: object) -> None:
        asked.append(1)
        raise ContentRefusedError("no")

    monkeypatch.setattr("editr1.endpoint.Endpoint.post", refuse)
    check_alive(openai_api.build("m", base_url="http://127.0.0.1:1/v1"))
    check_alive(object(), None)
    assert asked == [1]
