"""Every way to learn from pairs against numbers worked by hand."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from editr1.config import Component, available, create
from editr1.errors import ConfigError
from editr1.objectives import gcpo as paper
from editr1.pair_learning.base import Needs
from editr1.training.pair_reward import JudgedPair, PairReward

NAN = math.nan
W, L = torch.tensor([[8.0, 5.0, NAN]]), torch.tensor([[6.0, 4.0, 2.0]])


def made(id: str, **options: object) -> object:
    return create("pair_learning", Component(id, dict(options)))


def advantages(reward_w: torch.Tensor, reward_l: torch.Tensor, needs: Needs) -> tuple[torch.Tensor, torch.Tensor]:
    return JudgedPair((None,) * reward_w.shape[1], (), reward_w[0], reward_l[0], needs).advantages  # type: ignore[arg-type]


def test_every_file_is_a_way_that_says_what_it_needs() -> None:
    assert available("pair_learning") == ["bradley_terry", "gcpo", "irpo", "pd_grpo"]
    needs = {id: made(id).needs for id in available("pair_learning")}  # type: ignore[attr-defined]
    assert needs["gcpo"] == Needs()  # paper: group of an image, no deviation, no KL, no format reward
    assert needs["pd_grpo"] == Needs(group="pair", scaled=True, kl=0.003, format_reward=0.1)
    assert needs["irpo"] == Needs(scaled=True, kl=0.001, format_reward=0.5)
    assert not needs["bradley_terry"].traces


def test_gcpo_is_the_papers_ratios() -> None:
    reward_w, reward_l = made("gcpo").rewards(W, L)  # type: ignore[attr-defined]
    assert reward_w.tolist() == [[1.0, pytest.approx(2 / 3), 0.0]]  # 8 beats 3 of 3, 5 beats 2 of 3, the unread one none
    assert reward_l.tolist() == [[0.5, 1.0, 1.0]]  # 6 stays below 8 alone, of two read opponents
    torch.testing.assert_close((reward_w, reward_l), (paper.win_ratio(W, L), paper.loss_ratio(L, W)))
    both = advantages(reward_w, reward_l, Needs())
    torch.testing.assert_close(torch.stack(both), paper.advantages(torch.cat([reward_w, reward_l])), rtol=0, atol=0)


def test_gcpos_options_reach_its_rule() -> None:
    tied = torch.tensor([[5.0]]), torch.tensor([[5.0]])
    assert made("gcpo", tie_credit=0.5).rewards(*tied)[0].item() == 0.5  # type: ignore[attr-defined]
    assert made("gcpo", margin=3.0).rewards(W, L)[0].tolist() == [[pytest.approx(2 / 3), 0.0, 0.0]]  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="tie_credit"):
        made("gcpo", tie_credit=2.0)


def test_pd_grpo_compares_with_the_mean_of_the_other_image() -> None:
    reward_w, reward_l = made("pd_grpo").rewards(W, L)  # type: ignore[attr-defined]
    assert reward_w.tolist() == [[1.0, 1.0, 0.0]]  # mean of l is 4; nan is above nothing
    assert reward_l.tolist() == [[1.0, 1.0, 1.0]]  # mean of the read w is 6.5
    reward_w, reward_l = made("pd_grpo", margin=1.0).rewards(W, L)  # type: ignore[attr-defined]
    assert reward_w.tolist() == [[1.0, 0.0, 0.0]]  # 5 - 4 is not more than 1
    assert reward_l.tolist() == [[0.0, 1.0, 1.0]]  # 6.5 - 6 is not
    no_opponent = made("pd_grpo").rewards(W, torch.full((1, 3), NAN))  # type: ignore[attr-defined]
    assert not torch.cat(no_opponent).any()


def test_equal_scores_are_no_gap_whatever_the_last_bit_of_their_mean() -> None:
    for score in (6.9, 9.9, 8.3):
        for number in (3, 6, 8):
            equal = torch.full((1, number), score)
            assert not torch.cat(made("pd_grpo").rewards(equal, equal)).any()  # type: ignore[attr-defined]
            assert (torch.cat(made("irpo", kind="mean").rewards(equal, equal)) == -1).all()  # type: ignore[attr-defined]


def test_pd_grpos_advantages_are_over_both_images() -> None:
    """Rewards 1 1 1 0: mean 3/4, deviation (n - 1) 1/2; all of w agree and still have an advantage."""
    reward_w, reward_l = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    advantage_w, advantage_l = advantages(reward_w, reward_l, made("pd_grpo").needs)  # type: ignore[attr-defined]
    assert advantage_w.tolist() == pytest.approx([0.25 / 0.5001] * 2)
    assert advantage_l.tolist() == pytest.approx([0.25 / 0.5001, -0.75 / 0.5001])


def test_irpo_is_the_mean_bradley_terry_probability() -> None:
    reward_w, reward_l = made("irpo").rewards(torch.tensor([[3.0, NAN]]), torch.tensor([[3.0, 2.0]]))  # type: ignore[attr-defined]
    one = 1 / (1 + math.exp(-1))  # sigmoid(3 - 2) = .7311
    assert reward_w.tolist() == [pytest.approx([(0.5 + one) / 2, 0.0])]
    assert reward_l.tolist() == [pytest.approx([0.5, one])]  # the unread trace is no opponent
    cooler, _ = made("irpo", temperature=0.5).rewards(torch.tensor([[3.0]]), torch.tensor([[2.0]]))  # type: ignore[attr-defined]
    assert cooler.item() == pytest.approx(1 / (1 + math.exp(-2)))
    scaled, _ = advantages(torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2), made("irpo").needs)  # type: ignore[attr-defined]
    assert scaled.tolist() == pytest.approx([-0.5 / (math.sqrt(0.5) + 1e-4), 0.5 / (math.sqrt(0.5) + 1e-4)])


def test_irpos_second_reward_is_a_sign() -> None:
    reward_w, reward_l = made("irpo", kind="mean").rewards(W, torch.tensor([[6.0, 4.0, 9.0]]))  # type: ignore[attr-defined]
    assert reward_w.tolist() == [[1.0, -1.0, 0.0]]  # mean of l is 19/3
    assert reward_l.tolist() == [[1.0, 1.0, -1.0]]  # mean of the read w is 6.5
    assert made("irpo", kind="mean").needs.format_reward == 1.5  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("id", "options", "match"),
    [
        ("pd_grpo", {"margin": -1.0}, "margin is -1.0"),
        ("irpo", {"temperature": 0.0}, "temperature is 0.0"),
        ("irpo", {"kind": "median"}, "known: bradley_terry, mean"),
        ("bradley_terry", {"centre": NAN}, "centre is nan"),
    ],
)
def test_values_without_a_meaning_are_refused(id: str, options: dict[str, object], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        made(id, **options)


def test_unknown_ways_are_named() -> None:
    with pytest.raises(ConfigError, match=r"unknown component 'gcpoo' of kind 'pair_learning'"):
        made("gcpoo")


def test_the_bradley_terry_loss() -> None:
    loss = made("bradley_terry").loss(torch.tensor([0.0, 2.0, -2.0]), torch.zeros(3))  # type: ignore[attr-defined]
    assert loss.tolist() == pytest.approx([math.log(2), math.log(1 + math.exp(-2)), math.log(1 + math.exp(2))])
    centred = made("bradley_terry", centre=0.01).loss(torch.tensor([3.0]), torch.tensor([1.0]))  # type: ignore[attr-defined]
    assert centred.item() == pytest.approx(math.log(1 + math.exp(-2)) + 0.01 * 16)


def test_a_way_of_ones_own_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The share of the scale between a trace and the other image's best: nothing in the package knows it."""
    (tmp_path / "my_way.py").write_text(
        "from editr1.pair_learning.base import Needs\n"
        "class Gap:\n"
        "    needs = Needs(format_reward=0.25)\n"
        "    def rewards(self, tau_w, tau_l):\n"
        "        return (tau_w - tau_l.amax(1, keepdim=True)) / 10, (tau_w.amin(1, keepdim=True) - tau_l) / 10\n"
        "def build():\n"
        "    return Gap()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    reward = PairReward(method=create("pair_learning", Component("my_way:build")))
    texts = [f"<score>{score}</score>" for score in (8, 5, 4, 2)]
    columns = {"pair": [0] * 4, "side": list("wwll"), "labels": [()] * 4, "needs_verdicts": [False] * 4, "prompt_text": [""] * 4}
    assert reward(texts, **columns) == pytest.approx([0.65, 0.35, 0.35, 0.55])
    assert reward.advantages == pytest.approx([0.15, -0.15, -0.1, 0.1])
