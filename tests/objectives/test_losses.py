"""KL conventions, surrogate, Guard and NFT against distributions, hand values and Monte Carlo."""

import pytest
import torch

from editr1.algorithms.guard import guard_log_ratio
from editr1.algorithms.nft import nft_loss, optimality
from editr1.objectives.schedule import flux_schedule
from editr1.objectives.sde import clipped_surrogate, kl_divergence, kl_weight, log_prob, make_step, mean_of

SHAPE = (3, 5, 4)


def tensors(num, seed=0, shape=SHAPE):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(num)]


@pytest.mark.parametrize("kind", ["flow_sde", "dance_sde", "cps", "ddim"])
def test_latent_true_is_the_gaussian_kl_per_element_and_dtfree_is_it_times_dt(kind):
    step = make_step(kind, 0.652, 0.484, 0.7)
    x, v, v_ref = tensors(3)
    normal = torch.distributions.Normal
    oracle = torch.distributions.kl_divergence(normal(mean_of(step, x, v), step.std), normal(mean_of(step, x, v_ref), step.std))
    true = kl_divergence(v, v_ref, kl_weight("latent_true", step))
    torch.testing.assert_close(true, oracle.mean((1, 2)))
    torch.testing.assert_close(kl_divergence(v, v_ref, kl_weight("latent_dtfree", step)), true * abs(step.dt))
    torch.testing.assert_close(kl_divergence(v, v_ref, kl_weight("velocity", step)), (v - v_ref).square().mean((1, 2)))


def test_kl_weights_of_kontext_have_their_known_values():
    """Flow-GRPO, a = .9, 6 steps at 512 pixels: closed form dt^2 (1 + a^2/2)^2 (1 - s) / (2 a^2 s)."""
    schedule = flux_schedule(6, 1024)
    steps = [make_step("flow_sde", *schedule.pair(i), 0.9, schedule.sigmas[1]) for i in range(6)]
    dtfree = [0.0017, 0.0061, 0.0184, 0.0579, 0.242]
    true = [0.0057, 0.0148, 0.0445, 0.109, 0.274, 0.886]
    assert [kl_weight("latent_dtfree", s) for s in steps[1:]] == pytest.approx(dtfree, rel=0.03)
    assert [kl_weight("latent_true", s) for s in steps[1:]] == pytest.approx(true[1:], rel=0.03)
    for index in range(1, 6):
        s, s_next = schedule.pair(index)
        closed = (s_next - s) ** 2 * (1 + 0.9**2 / 2) ** 2 * (1 - s) / (2 * 0.9**2 * s)
        assert kl_weight("latent_dtfree", steps[index]) == pytest.approx(closed)


def test_kl_is_zero_for_equal_policies_and_its_gradient_reaches_only_the_policy():
    v, v_ref = tensors(2)
    assert float(kl_divergence(v, v.clone(), 1.0).sum()) == 0.0
    v.requires_grad_()
    v_ref.requires_grad_()
    kl_divergence(v, v_ref, 1.0).sum().backward()
    assert v.grad is not None
    assert float(v.grad.abs().sum()) > 0
    assert v_ref.grad is None


def test_a_latent_kl_of_a_deterministic_step_is_refused():
    with pytest.raises(ValueError, match="deterministic"):
        kl_weight("latent_true", make_step("ode", 0.5, 0.3, 0.0))


@pytest.mark.parametrize("advantage", [2.0, -2.0])
def test_at_ratio_one_the_gradient_is_the_plain_policy_gradient(advantage):
    log_ratio = torch.zeros(3, requires_grad=True)
    clipped_surrogate(log_ratio, torch.full((3,), advantage), 1e-4, 1e-4).loss.sum().backward()
    torch.testing.assert_close(log_ratio.grad, torch.full((3,), -advantage))


@pytest.mark.parametrize(
    ("log_ratio", "advantage", "moves"),
    [(0.3, 1.0, False), (-0.3, 1.0, True), (0.3, -1.0, True), (-0.3, -1.0, False), (0.1, 1.0, True), (0.1, -1.0, True)],
)
def test_the_clip_stops_only_moves_that_went_far_enough(log_ratio, advantage, moves):
    value = torch.tensor([log_ratio], requires_grad=True)
    result = clipped_surrogate(value, torch.tensor([advantage]), 0.2, 0.2)
    result.loss.sum().backward()
    assert bool(value.grad.abs() > 0) is moves
    assert bool(result.clipped) is not moves


def test_an_asymmetric_clip_uses_each_side():
    result = clipped_surrogate(torch.tensor([0.3, -0.3]), torch.tensor([1.0, -1.0]), 0.1, 0.5)
    torch.testing.assert_close(result.loss, torch.tensor([-torch.tensor(0.3).exp().item(), 0.9]))  # 1.35 < 1.5; .74 -> .9


def test_guard_has_expectation_zero_under_the_old_policy_and_the_plain_ratio_does_not():
    step = make_step("flow_sde", 0.484, 0.273, 0.7)
    num = 4000
    noise, direction = tensors(2, seed=1, shape=(num, 16, 4))
    mean_old = torch.zeros_like(noise)
    mean = mean_old + 0.05 * direction[:1]
    x_next = mean_old + step.std * noise
    plain = log_prob(step, x_next, mean) - log_prob(step, x_next, mean_old)
    guarded = guard_log_ratio(plain, mean, mean_old, step.std)
    bias = -float((mean - mean_old)[0].square().mean()) / (2 * step.std**2)
    tolerance = 4 * float(plain.std()) / num**0.5
    assert float(plain.mean()) == pytest.approx(bias, abs=tolerance)
    assert abs(bias) > tolerance
    assert float(guarded.mean()) == pytest.approx(0.0, abs=4 * float(guarded.std()) / num**0.5)
    torch.testing.assert_close(guarded, (noise * (mean - mean_old)).mean((1, 2)), atol=1e-5, rtol=1e-4)


def test_guard_does_not_depend_on_the_step_size_given_noise_and_shift():
    noise, shift = tensors(2)
    values = []
    for s, s_next in ((0.9, 0.8), (0.3, 0.2)):
        step = make_step("dance_sde", s, s_next, 0.5)
        mean_old, mean = torch.zeros(SHAPE), 0.01 * shift
        x_next = step.std * noise
        plain = log_prob(step, x_next, mean) - log_prob(step, x_next, mean_old)
        values.append(guard_log_ratio(plain, mean, mean_old, step.std))
    torch.testing.assert_close(values[0], values[1], atol=1e-6, rtol=1e-3)


def test_optimality_maps_the_clamped_advantage_to_the_unit_interval():
    torch.testing.assert_close(optimality(torch.tensor([-9.0, -5.0, 0.0, 2.5, 9.0])), torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0]))


def test_nft_pulls_good_samples_closer_and_pushes_bad_ones_away():
    x0, noise, v_old = (rows[:1].expand(3, -1, -1) for rows in tensors(3))  # one sample, judged good, neutral and bad
    t = torch.full((3,), 0.5)
    x = 0.5 * x0 + 0.5 * noise
    v = v_old.clone().requires_grad_()
    nft_loss(v, v_old, x, x0, t, torch.tensor([1.0, 0.5, 0.0])).sum().backward()
    towards = (v_old - (noise - x0)).flatten(1)  # descent on a good sample reduces this difference
    good, neutral, bad = ((v.grad.flatten(1) * towards).sum(1)).tolist()
    assert good > 0 > bad
    assert neutral == pytest.approx(0.0, abs=1e-6)  # both pulls cancel at v = v_old
    assert bad == pytest.approx(-good, rel=1e-5)
