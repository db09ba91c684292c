"""Advantages and windows: hand tables and invariances."""

import random

import pytest
import torch

from editr1.objectives.advantages import cautious_rewards, combine_rewards, group_advantages
from editr1.objectives.sde import window_steps

NAN = float("nan")


def test_advantages_equal_the_hand_table():
    # group 1: mean 2, population std sqrt(2/3); group 2: mean 5, std 2
    rewards = torch.tensor([[1.0, 2.0, 3.0], [5.0 - 2 * 1.5**0.5, 5.0, 5.0 + 2 * 1.5**0.5]])
    expected = torch.tensor([[-(1.5**0.5), 0.0, 1.5**0.5], [-(1.5**0.5), 0.0, 1.5**0.5]])
    torch.testing.assert_close(group_advantages(rewards, epsilon=0.0), expected)


@pytest.mark.parametrize("std", ["group", "batch", "none"])
def test_group_mean_is_zero_and_order_does_not_matter(std):
    rewards = torch.rand((4, 6), generator=torch.Generator().manual_seed(0)) * 10
    advantages = group_advantages(rewards, std)
    torch.testing.assert_close(advantages.mean(1), torch.zeros(4), atol=1e-6, rtol=0)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(group_advantages(rewards[:, order], std), advantages[:, order])


def test_group_std_is_blind_to_affine_maps_of_the_reward():
    rewards = torch.rand((4, 6), generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(group_advantages(3 * rewards + 5, epsilon=0.0), group_advantages(rewards, epsilon=0.0), rtol=1e-4, atol=1e-5)


def test_an_unscored_sample_gets_zero_and_changes_no_one_else():
    with_gap = group_advantages(torch.tensor([[1.0, NAN, 3.0, 5.0]]))
    without = group_advantages(torch.tensor([[1.0, 3.0, 5.0]]))
    assert with_gap[0, 1] == 0.0
    torch.testing.assert_close(with_gap[0, [0, 2, 3]], without[0])


def test_groups_that_teach_nothing_get_zero_and_change_no_one_else():
    rewards = torch.tensor([[1.0, 2.0, 3.0], [4.1, 4.1, 4.1], [NAN, NAN, NAN], [NAN, 7.0, NAN]])
    advantages = group_advantages(rewards)
    assert advantages[1:].abs().sum() == 0
    torch.testing.assert_close(advantages[:1], group_advantages(rewards[:1]))
    assert group_advantages(torch.full((2, 3), NAN), "batch").abs().sum() == 0


def test_a_std_floor_drops_near_ties():
    assert group_advantages(torch.tensor([[5.0, 5.04, 5.0]]), min_std=0.05).abs().sum() == 0


def test_one_outlier_is_clamped():
    assert float(group_advantages(torch.tensor([[0.0] * 99 + [1.0]])).max()) == 5.0


def test_rewards_are_normalised_before_they_are_summed():
    wide = torch.tensor([[0.0, 1000.0]])
    narrow = torch.tensor([[0.001, 0.0]])
    torch.testing.assert_close(
        combine_rewards(torch.stack([wide, narrow]), (0.5, 0.5), epsilon=0.0), torch.zeros(1, 2)
    )  # each reward says +-1
    assert combine_rewards(torch.stack([wide, torch.tensor([[NAN, 1.0]])]), (0.5, 0.5))[0, 0].isnan()


def test_caution_takes_the_mean_less_the_spread_of_two_judges_and_at_1_the_smaller():
    first, second = torch.tensor([[9.0, 4.0, 7.0]]), torch.tensor([[5.0, 6.0, NAN]])
    both = torch.stack([first, second])
    for caution in (0.0, 0.5, 1.0, 2.0):
        known = 2 * (both.mean(0) - caution * both.std(0, unbiased=False))
        torch.testing.assert_close(cautious_rewards(both, [1.0], [caution]), known, equal_nan=True)
    torch.testing.assert_close(cautious_rewards(both, [1.0], [1.0])[0, :2], torch.tensor([10.0, 8.0]))
    three = cautious_rewards(torch.stack([first, second, first]), [0.5, 2.0], [1.0, 0.0])
    assert three[0, 0] == 9.0 + 0.5 * (5.0 - 4.0) + 2.0 * 9.0


@pytest.mark.parametrize("combine", ["sum", "cautious"])
def test_a_judge_that_can_be_deceived_is_held_by_one_that_cannot_where_the_smaller_counts(combine):
    """An edit is (quality, trick); tricks cost truth, the first judge loves them, the second does not see them."""
    generator = torch.Generator().manual_seed(0)
    policy = torch.zeros(2)
    for _ in range(300):
        edits_CGD = policy + 0.3 * torch.randn(8, 8, 2, generator=generator)
        quality, trick = edits_CGD.unbind(-1)
        judges = torch.stack([quality + 3.0 * trick, quality])
        if combine == "sum":
            advantages = combine_rewards(judges, (1.0, 1.0))
        else:
            advantages = group_advantages(cautious_rewards(judges, [1.0], [1.0]), "batch")
        policy = policy + 0.1 * (advantages[..., None] * (edits_CGD - policy)).mean((0, 1)) / 0.3
    quality, trick = policy.tolist()
    truth = quality - trick**2
    assert quality > 3.0  # both learn
    assert truth < -10.0 if combine == "sum" else truth > 3.0


def test_the_random_window_is_pure_stays_inside_and_covers_its_range():
    global_state, torch_state = random.getstate(), torch.get_rng_state()
    windows = [window_steps("random", 2, 1, 6, seed=3, iteration=i, num_steps=10) for i in range(60)]
    again = [window_steps("random", 2, 1, 6, seed=3, iteration=i, num_steps=10) for i in range(60)]
    assert windows == again
    assert set(windows) == {(1, 2), (2, 3), (3, 4), (4, 5)}
    assert random.getstate() == global_state
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_the_progressive_window_moves_on_and_returns():
    starts = [window_steps("progressive", 2, 0, 4, seed=0, iteration=i, num_steps=10, hold=5)[0] for i in range(20)]
    assert starts == [0] * 5 + [1] * 5 + [2] * 5 + [0] * 5


def test_a_window_with_the_last_step_is_refused():
    with pytest.raises(ValueError, match="does not fit"):
        window_steps("fixed", 2, 3, 6, seed=0, iteration=0, num_steps=6)
