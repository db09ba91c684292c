"""The public surface: lazy, typed, documented."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import editr1
from research.api_page import PAGE, page


def test_every_public_name_is_there_and_is_what_its_home_says() -> None:
    assert sorted(set(editr1.__all__)) == sorted(editr1.__all__)
    assert set(editr1.__all__) <= set(dir(editr1))
    for name in editr1.__all__:
        assert getattr(editr1, name).__name__ == name
    with pytest.raises(AttributeError, match="RewardModell"):
        _ = editr1.RewardModell


def test_no_public_name_loads_torch() -> None:
    code = f"import sys, editr1; [getattr(editr1, name) for name in {editr1.__all__!r}]; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "False"


def test_a_type_checker_sees_the_names(tmp_path: Path) -> None:
    assert (Path(editr1.__file__).parent / "py.typed").exists()
    user = tmp_path / "user.py"
    user.write_text("import editr1\nfrom editr1 import RewardModel, open_run\nreveal_type(RewardModel)\nreveal_type(open_run)\n")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--follow-imports=silent", "--ignore-missing-imports", "--cache-dir", str(tmp_path), str(user)],
        capture_output=True, text=True, cwd=Path(__file__).parents[1], check=False,
    )  # fmt: skip
    assert "editr1.judge.rrm.RewardModel" in done.stdout
    assert "editr1.store.Run" in done.stdout


def test_the_api_page_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m research.api_page"


def test_a_checkpoint_is_a_judge_in_three_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    from scripted_vlm import ScriptedVLM

    asked = {}

    def create(kind: str, component: editr1.Component) -> ScriptedVLM:
        asked.update({"kind": kind, "id": component.id, **component.options})
        return ScriptedVLM(lambda request: "<score>7.5</score>")

    monkeypatch.setattr("editr1.judge.rrm.create", create)
    model = editr1.RewardModel.from_checkpoint("folder", prompt_id="compact_direct", batch_size=2)
    assert asked == {"kind": "vlm", "id": "local", "path": "folder", "batch_size": 2}
    assert model.score([editr1.RewardItem(Image.new("RGB", (8, 8)), Image.new("RGB", (8, 8)), "Make it red")])[0].value == 7.5
    assert model.decomposer is None  # this prompt shows no principles
    assert editr1.RewardModel.from_endpoint("m", "http://localhost:8000/v1", num_traces=4).decomposer is not None
    assert asked["base_url"] == "http://localhost:8000/v1"
