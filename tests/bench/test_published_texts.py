"""Where the texts of judges with public weights come from: the files of their projects, read as data, or an error that says what to get."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from editr1.config import Component, create
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from published_judges import FILES, REPLIES, published
from scripted_vlm import ScriptedVLM

ASKING = sorted(REPLIES)
ITEM = RewardItem(Image.new("RGB", (8, 8), "red"), Image.new("RGB", (8, 8), "blue"), "Make it blue", id="i")
GET = {
    "editscore": "pip install editscore.*EditScore-7B",
    "trm_edit": "github.com/bxhsort/Thinking_Reward_Model.*asdjghh/TRM-Image_Editing",
    "rationalrewards": "github.com/TIGER-AI-Lab/RationalRewards.*RationalRewards-8B-Edit",
    "unifiedreward_edit": "github.com/CodeGoat24/UnifiedReward.*UnifiedReward-Edit-qwen3vl-8b",
    "firm_edit": "github.com/VisionXLab/FIRM-Reward.*FIRM-Edit-8B",
    "editreward": "github.com/TIGER-AI-Lab/EditReward.*EditReward-Qwen2.5-VL-7B",
}


def component(name: str, prompts: str | None) -> Component:
    model = {"checkpoint": "nowhere"} if name == "editreward" else {"vlm": ScriptedVLM(lambda request: "")}
    return Component(name, {**model, "prompts": prompts})


@pytest.mark.parametrize("name", sorted(FILES))
def test_what_is_missing_says_what_to_get(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=f"judge {name}: .*{GET[name]}"):
        create("judges", component(name, None))
    with pytest.raises(ConfigError, match=f"holds no .*{GET[name]}"):
        create("judges", component(name, str(tmp_path)))


@pytest.mark.parametrize("name", sorted(FILES))
@pytest.mark.parametrize("content", ["x = 1\n", "def (:\n", "\0"])
def test_a_file_of_another_project_is_refused_before_anything_is_asked(name: str, content: str, tmp_path: Path) -> None:
    folder = Path(published(name, tmp_path))
    (folder / next(iter(FILES[name]))).write_text(content)
    with pytest.raises(ConfigError, match=f"judge {name}: "):
        create("judges", component(name, str(folder)))


def test_a_text_that_is_computed_is_not_guessed(tmp_path: Path) -> None:
    path = tmp_path / "prompts.py"
    path.write_text("EDIT_SYSTEM_PROMPT = open('prompt.txt').read()\n")
    with pytest.raises(ConfigError, match=r"prompts.py:1: EDIT_SYSTEM_PROMPT is made by more than joining strings"):
        create("judges", component("trm_edit", str(path)))


@pytest.mark.parametrize("name", ASKING)
def test_the_contents_of_the_files_are_part_of_what_was_asked(name: str, tmp_path: Path) -> None:
    folder = Path(published(name, tmp_path))
    first = create("judges", component(name, str(folder))).texts
    assert first
    path = folder / next(iter(FILES[name]))
    path.write_text(path.read_text() + "\n# another version\n")
    assert create("judges", component(name, str(folder))).texts != first


def test_an_installed_package_is_read_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(published("editscore", tmp_path))))
    (tmp_path / "editscore" / "editscore" / "__init__.py").write_text("raise ImportError('the package itself is not run')\n")
    judge = create("judges", Component("editscore", {"vlm": ScriptedVLM(lambda request: REPLIES["editscore"][0]), "num_passes": 1}))
    assert judge.score([ITEM])[0].value == 4.0


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_folder_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="option 'prompts': expected a text"):
        create("judges", Component(name, {**component(name, None).options, "prompts": 5}))


def test_an_annotated_text_is_a_text(tmp_path: Path) -> None:
    path = Path(published("trm_edit", tmp_path)) / "src" / "trm" / "prompts.py"
    path.write_text(path.read_text().replace("EDIT_SYSTEM_PROMPT =", "EDIT_SYSTEM_PROMPT: str ="))
    vlm = ScriptedVLM(lambda request: REPLIES["trm_edit"][0])
    create("judges", Component("trm_edit", {"vlm": vlm, "prompts": str(path)})).score([ITEM])
    assert vlm.requests[0].system == "Write a checklist, then final_score from 0 to 10, as JSON."


def test_a_prompt_with_another_variable_is_refused(tmp_path: Path) -> None:
    folder = Path(published("firm_edit", tmp_path))
    path = folder / "editing" / "reward_server" / "prompt_template.py"
    path.write_text(path.read_text().replace("kept? {prompt}", "kept? {words}"))
    with pytest.raises(ConfigError, match="does not take an instruction"):
        create("judges", component("firm_edit", str(folder)))
