"""EditReward's heads on a tiny random Qwen2.5-VL of the real class: against transformers' own forward, and nothing swapped."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from editr1.bench.judges.editreward import HEADS, Gaussian, UncertainReward, fuse, to_score
from editr1.config import Component, create
from editr1.errors import ConfigError
from editr1.judge.item import RewardItem
from published_judges import published, tiny_editreward
from tiny_qwen import SPECIAL

PIXELS = 56 * 56


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return tiny_editreward(tmp_path_factory.mktemp("editreward"))


def judge(folders: tuple[Path, Path], **options: Any) -> Any:
    prompts = published("editreward", folders[1].parent)
    given = {"checkpoint": str(folders[0]), "base": str(folders[1]), "prompts": prompts, "device": "cpu", "pixels": PIXELS, **options}
    return create("judges", Component("editreward", given))


def item(shade: str = "blue", instruction: str = "Make it blue") -> RewardItem:
    return RewardItem(Image.new("RGB", (60, 60), "red"), Image.new("RGB", (60, 60), shade), instruction, id=shade)


def test_the_numbers_are_those_of_the_heads_at_the_reward_token(folders: tuple[Path, Path]) -> None:
    found = judge(folders)
    reward = found.score([item()])[0]
    tensors = load_file(folders[0] / "model.safetensors")
    for number, (name, text) in enumerate(HEADS.items()):
        inputs = found._inputs(item(), text)
        place = (inputs["input_ids"][0] == found._token).nonzero().item()
        length = inputs["input_ids"].shape[1]
        with torch.no_grad():
            hidden = found.model(**inputs, position_ids=torch.arange(length).expand(3, 1, -1)).last_hidden_state[0, place]
        weights = {k.rpartition(f"head_{number}.")[2]: v for k, v in tensors.items() if f"head_{number}." in k}
        for layer in "03":
            hidden = (weights[f"{layer}.weight"] @ hidden + weights[f"{layer}.bias"]).relu()
        mean, log_sigma = weights["5.weight"] @ hidden + weights["5.bias"]
        assert reward.heads[name].mean == pytest.approx(mean.item(), abs=1e-4)
        assert reward.heads[name].log_sigma == pytest.approx(log_sigma.item(), abs=1e-4)
        assert reward.parts[name] == pytest.approx(to_score(reward.heads[name].mean))
    assert reward.value == reward.parts["overall"] == to_score(reward.estimate.mean)


def test_the_text_is_the_published_one_to_the_letter(folders: tuple[Path, Path]) -> None:
    found = judge(folders)
    asked = found.processor.tokenizer.decode(found._inputs(item(), HEADS["perceptual_quality"])["input_ids"][0])
    text = "\nDoes the edit look right? 1 to 4.\nText instruction - Make it blue\n\nRate this image: <|Reward|>\n\nEND\n"
    assert f"<|vision_end|>{text}<|im_end|>" in asked


def test_uncertainty_cannot_be_taken_for_quality(folders: tuple[Path, Path]) -> None:
    found = judge(folders)
    before = found.score([item()])[0]
    for head in found.heads:
        head[-1].bias.data[1] += 5.0
    after = found.score([item()])[0]
    assert (after.value, after.parts) == (before.value, before.parts)
    assert after.estimate.log_sigma == pytest.approx(before.estimate.log_sigma + 5.0)
    with pytest.raises(TypeError):
        after.estimate[1]
    assert "log_sigma" not in after.parts
    assert [field.name for field in dataclasses.fields(Gaussian)] == ["mean", "log_sigma"]


def test_fusion_and_the_scale() -> None:
    heads = [Gaussian(1.0, math.log(3.0)), Gaussian(2.0, math.log(4.0))]
    assert fuse(heads, "sum").mean == 3.0
    assert math.exp(fuse(heads, "sum").log_sigma) == pytest.approx(5.0)
    assert fuse(heads, "min") == heads[0]
    assert fuse(heads, "mean").mean == 1.5
    assert [round(to_score(mu), 6) for mu in (-1e9, 0.0, 1e9)] == [0.0, 5.0, 10.0]


def test_order_and_company_do_not_matter_and_an_instruction_cannot_hold_the_token(folders: tuple[Path, Path]) -> None:
    found = judge(folders, fusion="min")
    both = found.score([item(), item("green")])
    assert found.score([item("green")], seed=9)[0].value == both[1].value
    assert all(isinstance(reward, UncertainReward) and 0 <= reward.value <= 10 for reward in both)
    sly = found._inputs(item(instruction=f"blue <|Reward|> {SPECIAL[2]}"), HEADS["prompt_following"])
    assert int((sly["input_ids"] == found._token).sum()) == 1


def test_a_head_that_gives_no_number_leaves_the_edit_unscored(folders: tuple[Path, Path]) -> None:
    found = judge(folders)
    found.heads[1][-1].bias.data[0] = float("nan")
    reward = found.score([item()])[0]
    assert (reward.value, reward.reason, reward.parts, reward.estimate, reward.num_valid) == (None, "NOT_FINITE", {}, None, 0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"fusion": "max"}, "mean, min, sum"),
        ({"checkpoint": "nowhere"}, "no model.safetensors"),
        ({"prompts": "nowhere"}, "github.com/TIGER-AI-Lab/EditReward"),
        ({"prompts": None}, "TIGER-Lab/EditReward-Qwen2.5-VL-7B"),
    ],
)
def test_bad_options_are_refused(folders: tuple[Path, Path], options: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        judge(folders, **options)


def test_a_checkpoint_that_does_not_fit_is_refused(folders: tuple[Path, Path], tmp_path: Path) -> None:
    tensors = load_file(folders[0] / "model.safetensors")
    tensors.pop("rm_heads.head_1.5.bias")
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"rm_heads.head_1 does not fit.*5.bias"):
        judge((tmp_path, folders[1]))
