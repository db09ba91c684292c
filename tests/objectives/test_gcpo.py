"""Laws of GCPO's ratios, advantages and loss."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from editr1.objectives import gcpo

NAN = math.nan
laws = settings(deadline=None)  # the first call of a torch operator is slow
scores = st.one_of(st.just(NAN), st.integers(0, 20).map(lambda half_points: half_points / 2))


@st.composite
def groups(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor]:
    num_pairs, num_traces = draw(st.integers(1, 4)), draw(st.integers(1, 6))
    rows = st.lists(st.lists(scores, min_size=num_traces, max_size=num_traces), min_size=num_pairs, max_size=num_pairs)
    return torch.tensor(draw(rows), dtype=torch.float64), torch.tensor(draw(rows), dtype=torch.float64)


def test_ratios_and_advantages_match_a_hand_worked_pair() -> None:
    tau_w, tau_l = torch.tensor([[7.0, 5.0, NAN]]), torch.tensor([[5.0, 6.0, 2.0]])
    # 7 beats 5, 6, 2; 5 beats 2 only (5 = 5 earns nothing); the unparsed trace earns nothing: 3/3, 1/3, 0/3
    assert gcpo.win_ratio(tau_w, tau_l).tolist() == [[1.0, pytest.approx(1 / 3), 0.0]]
    # two parsed opponents, 7 and 5: 5 < 7 only; 6 < 7 only; 2 < 7 and 2 < 5: 1/2, 1/2, 2/2
    assert gcpo.loss_ratio(tau_l, tau_w).tolist() == [[0.5, 0.5, 1.0]]
    # mean of (1/2, 1/2, 1) is 2/3
    assert gcpo.advantages(gcpo.loss_ratio(tau_l, tau_w))[0].tolist() == pytest.approx([-1 / 6, -1 / 6, 1 / 3])


@laws
@given(groups())
def test_both_sides_count_the_same_victories(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    tau_w, tau_l = pair
    both = gcpo.has_opponent(tau_w) & gcpo.has_opponent(tau_l)
    valid_w, valid_l = (~tau_w.isnan()).sum(1), (~tau_l.isnan()).sum(1)
    wins = gcpo.win_ratio(tau_w, tau_l).sum(1) * valid_l
    losses = gcpo.loss_ratio(tau_l, tau_w).sum(1) * valid_w
    torch.testing.assert_close(wins[both], losses[both])


@laws
@given(groups())
def test_each_group_of_advantages_sums_to_zero_and_ratios_are_shares(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    tau_w, tau_l = pair
    for ratio in (gcpo.win_ratio(tau_w, tau_l), gcpo.loss_ratio(tau_l, tau_w)):
        assert ((ratio >= 0) & (ratio <= 1)).all()
        torch.testing.assert_close(gcpo.advantages(ratio).sum(1), torch.zeros(len(ratio), dtype=ratio.dtype))


@laws
@given(groups())
def test_gcpo_is_blind_to_monotone_maps_of_tau(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    tau_w, tau_l = pair

    def warp(tau: torch.Tensor) -> torch.Tensor:
        return tau**3 + 2 * tau - 5  # strictly increasing, exact on half points

    assert torch.equal(gcpo.win_ratio(tau_w, tau_l), gcpo.win_ratio(warp(tau_w), warp(tau_l)))
    assert torch.equal(gcpo.loss_ratio(tau_l, tau_w), gcpo.loss_ratio(warp(tau_l), warp(tau_w)))


@laws
@given(groups())
def test_an_unparsed_trace_earns_nothing_and_is_no_opponent(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    tau_w, tau_l = pair
    lost = torch.full((len(tau_w), 1), NAN, dtype=tau_w.dtype)
    with_lost = torch.cat([tau_w, lost], dim=1)
    assert torch.equal(gcpo.loss_ratio(tau_l, tau_w), gcpo.loss_ratio(tau_l, with_lost))
    assert (gcpo.win_ratio(with_lost, tau_l)[:, -1] == 0).all()


@pytest.mark.parametrize("tau_l", [[[4.0, 4.0]], [[NAN, NAN]]])
def test_all_tied_or_no_opponent_gives_no_advantage(tau_l: list[list[float]]) -> None:
    tau_w, loser = torch.tensor([[4.0, 4.0]]), torch.tensor(tau_l)
    assert gcpo.advantages(gcpo.win_ratio(tau_w, loser)).tolist() == [[0.0, 0.0]]
    assert gcpo.advantages(gcpo.loss_ratio(loser, tau_w)).tolist() == [[0.0, 0.0]]
    assert gcpo.has_opponent(loser).tolist() == [not math.isnan(tau_l[0][0])]


@laws
@given(groups())
def test_half_credit_for_ties_makes_the_two_sides_mirror_images(pair: tuple[torch.Tensor, torch.Tensor]) -> None:
    tau_w, tau_l = torch.nan_to_num(pair[0], nan=5.0), torch.nan_to_num(pair[1], nan=5.0)
    half = gcpo.WinRule(tie_credit=0.5)
    forward, backward = gcpo.win_ratio(tau_w, tau_l, half), gcpo.win_ratio(tau_l, tau_w, half)
    torch.testing.assert_close(forward.mean(1) + backward.mean(1), torch.ones(len(tau_w), dtype=tau_w.dtype))


def test_a_margin_asks_for_a_clear_gap() -> None:
    tau_w, tau_l = torch.tensor([[6.0, 8.0]]), torch.tensor([[5.5, 5.5]])
    assert gcpo.win_ratio(tau_w, tau_l, gcpo.WinRule(margin=1.0)).tolist() == [[0.0, 1.0]]


@pytest.mark.parametrize("options", [{"tie_credit": 1.5}, {"margin": -1.0}, {"margin": NAN}])
def test_an_impossible_contest_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        gcpo.WinRule(**options)


def test_before_the_first_update_the_gradient_is_the_plain_policy_gradient() -> None:
    logp = torch.tensor([[-1.0, -2.0], [-0.5, -9.0]], requires_grad=True)
    mask, advantage = torch.tensor([[1.0, 1.0], [1.0, 0.0]]), torch.tensor([0.5, -0.5])
    gcpo.gcpo_loss(logp, logp.detach(), advantage, mask).backward()
    # d/dlogp of -(1/2) * A * (1/T): -0.5/(2*2) twice, then +0.5/(2*1), and nothing under the mask
    assert logp.grad is not None
    assert logp.grad.tolist() == [[-0.125, -0.125], [0.25, 0.0]]


@settings(max_examples=25, deadline=None)
@given(st.floats(-50, 50, allow_nan=False))
def test_masked_tokens_cannot_matter(garbage: float) -> None:
    logp, old = torch.tensor([[-1.0, garbage]]), torch.tensor([[-1.1, 0.0]])
    mask, advantage = torch.tensor([[1.0, 0.0]]), torch.tensor([0.7])
    # exp(-1 + 1.1) = 1.105 < 1.2, so nothing is clipped
    assert float(gcpo.gcpo_loss(logp, old, advantage, mask)) == pytest.approx(-0.7 * math.exp(0.1))


def test_the_clip_takes_the_pessimistic_side() -> None:
    old, mask = torch.zeros(1, 1), torch.ones(1, 1)
    far = torch.tensor([[1.0]])  # ratio e = 2.718
    assert float(gcpo.gcpo_loss(far, old, torch.tensor([1.0]), mask)) == pytest.approx(-1.2)
    assert float(gcpo.gcpo_loss(far, old, torch.tensor([-1.0]), mask)) == pytest.approx(math.e)


def test_a_gap_of_the_margin_is_no_win_whatever_its_last_bit() -> None:
    low = torch.arange(0, 100) / 10
    assert not gcpo.win_ratio((low + 0.1).round(decimals=1)[:, None], low[:, None], gcpo.WinRule(margin=0.1)).any()
    assert gcpo.win_ratio((low + 0.2).round(decimals=1)[:, None], low[:, None], gcpo.WinRule(margin=0.1)).all()
    assert gcpo.closeness_ratio((low + 0.1).round(decimals=1)[:, None], low[:, None], tolerance=0.1).all()


def test_batch_figures_of_a_hand_worked_pair() -> None:
    tau_w, tau_l = torch.tensor([[7.0, 5.0], [4.0, 4.0], [NAN, NAN]]), torch.tensor([[5.0, NAN], [3.0, 5.0], [1.0, 2.0]])
    # means 6 > 5, 4 = 4, and a side that never parsed: accuracy (1 + 1/2) / 2, one of two tied
    assert gcpo.pair_accuracy(tau_w, tau_l) == (0.75, 0.5)
    assert gcpo.pair_accuracy(torch.tensor([[0.1, 0.2, 0.3]]), torch.tensor([[0.3, 0.2, 0.1]])) == (0.5, 1.0)
    # comparisons: 7-5, 5-5 | 4-3, 4-5 twice | none: one equal of six
    assert gcpo.tie_share(tau_w, tau_l) == pytest.approx(1 / 6)
