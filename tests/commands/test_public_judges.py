"""A judge with public weights goes through every command that takes a judge: score-folder, compare, audit, serve, and editor RL."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from bench_files import png
from editr1.cli import main
from editr1.config import create, section
from editr1.flow.contexts import Context
from editr1.stages import edit_rl
from editr1.store import Run
from fake_endpoint import completion, serve
from published_judges import REPLIES, published, tiny_editreward
from serve_tools import LOCAL, edit
from tiny_run import build_tiny_run

JUDGES = [*sorted(REPLIES), "editreward"]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("published")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_editreward(tmp_path_factory.mktemp("editreward"))


@pytest.fixture
def url(request: pytest.FixtureRequest) -> Iterator[str]:
    """An endpoint that answers as the model of the judge at hand would."""
    name = request.getfixturevalue("name")
    text = REPLIES[name][0] if name in REPLIES else ""
    with serve(lambda body: completion(text.replace('"r"', f'"r {body.get("seed")}"'))) as endpoint:
        yield endpoint.url


@pytest.fixture
def chosen(name: str, root: Path, weights: tuple[Path, Path]) -> dict[str, Any]:
    """The options of the judge."""
    options: dict[str, Any] = {"prompts": published(name, root)}
    if name == "editreward":
        options |= {"checkpoint": str(weights[0]), "base": str(weights[1]), "device": "cpu", "pixels": 56 * 56}
    return options


def words(name: str, options: dict[str, Any], url: str) -> list[str]:
    """The judge on a command line."""
    chosen = [word for key, value in options.items() for word in ("--judge-set", f"{key}={value}")]
    return ["--judge", name, *chosen, *(() if name == "editreward" else ("--model", "m", "--base-url", url))]


def folder_of(root: Path) -> Path:
    root.mkdir()
    rows = []
    for number in range(3):
        (root / f"s{number}.png").write_bytes(png(40 * number))
        (root / f"e{number}.png").write_bytes(png(200 + 10 * number))
        rows.append({"source": f"s{number}.png", "edited": f"e{number}.png", "instruction": f"edit {number}"})
    (root / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


@pytest.mark.parametrize("name", JUDGES)
def test_folders_are_scored_compared_and_audited(
    name: str, chosen: dict[str, Any], url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, run = folder_of(tmp_path / "edits"), tmp_path / "run"
    for label in ("first", "second"):
        command = ["score-folder", str(folder), "--run", str(run), "--label", label, "--json", *words(name, chosen, url)]
        assert main(command) == 0, capsys.readouterr().err
        found = json.loads(capsys.readouterr().out.splitlines()[0])
        assert (found["n"], found["num_unscored"]) == (3, 0)
        if name in REPLIES:
            assert found["value"] == pytest.approx(REPLIES[name][1])
        else:
            assert 0 < found["value"] < 10
    first, second = (run / f"bench_folder_{label}.outcomes.jsonl" for label in ("first", "second"))
    assert main(["compare", str(first), str(second), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["value"] == 0.0
    table = str(folder / "edits.jsonl")
    assert main(["audit", "--table", table, "--probes", "resized", "--json", *words(name, chosen, url)]) in (0, 1)  # a law may not hold
    (probe,) = json.loads(capsys.readouterr().out)["probes"]
    assert (probe["name"], probe["n"]) == ("audit/resized", 3)


@pytest.mark.parametrize("name", JUDGES)
def test_it_is_served(name: str, chosen: dict[str, Any], url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    apps: list[Any] = []
    monkeypatch.setattr("editr1.serve.listen.listen", lambda app, bound: (apps.append(app), bound.close()))
    assert main(["serve", "--port", "0", *words(name, chosen, url)]) == 0
    with TestClient(apps[0], base_url=LOCAL) as client:
        answer = client.post("/edit-reward", json={"items": [edit(), edit(principles=None)]}).json()
        values = [result["value"] for result in answer["results"]]
        assert values[0] == values[1]
        assert 0 < values[0] < 10
        health = client.get("/health").json()
    assert (health["prompt"], answer["prompt"]) == (name, name)
    assert health["model"] == (name if name == "editreward" else "m")


@pytest.mark.parametrize("name", JUDGES)
def test_it_rewards_an_editor(name: str, chosen: dict[str, Any], url: str, tmp_path: Path) -> None:
    model = {} if name == "editreward" else {"vlm": {"id": "openai_api", "options": {"model": "m", "base_url": url}}}
    recipe = {"edit_rl": {"editor": {"id": "kontext"}, "reward": {"id": name, "options": {**chosen, **model}}}}
    score = edit_rl.judge_function(create("judges", section(recipe, "edit_rl", edit_rl.Config).reward))
    run = Run.open(build_tiny_run(tmp_path / "run"))
    context = Context(next(iter(run.read("01_tasks"))), (), run)
    rewards = score([(context, context.source()), (context, context.source().rotate(90))], 0)
    assert len(rewards) == 2
    assert all(reward.value is not None and 0 < reward.value < 10 for reward in rewards)


def test_changed_texts_are_another_judge(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, prompts = folder_of(tmp_path / "edits"), Path(published("trm_edit", tmp_path))
    with serve(lambda body: completion(REPLIES["trm_edit"][0])) as endpoint:
        command = ["score-folder", str(folder), "--run", str(tmp_path / "run"), *words("trm_edit", {"prompts": prompts}, endpoint.url)]
        assert main(command) == 0
        path = prompts / "src" / "trm" / "prompts.py"
        path.write_text(path.read_text().replace("checklist", "list"))
        assert main(command) == 2
    assert "--label" in capsys.readouterr().err


def test_a_judge_of_pairs_is_not_served(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--judge", "pairwise", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]) == 2
    assert "gives no scores to single edits" in capsys.readouterr().err
    assert main(["serve", "--judge", "viescore", "--prompt", "tv", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]) == 2
    assert "--judge-set" in capsys.readouterr().err
