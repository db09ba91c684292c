"""Every algorithm: known answers, the published numbers of peers, and its needs.

Peers' figures were computed once with their own functions, in the float types that they choose, on `peer_inputs()`.
"""

import math

import pytest
import torch

from editr1.algorithms.base import Rows
from editr1.config import Component, available, create
from editr1.errors import ConfigError

ALL = available("algorithms")


def algorithm(name, **options):
    if name == "distill":
        options = {"teacher": {"id": "toy:build"}} | options
    return create("algorithms", Component(name, options))


def rows(
    v, *, advantages, v_ref=None, v_old=None, x0=None, noise=None, sigma=None, group=None, mean=None, mean_old=None, log_ratio=None, std=1.0
):
    """Rows whose velocities are given."""
    count = len(v)
    x0 = torch.zeros_like(v) if x0 is None else x0
    noise = torch.zeros_like(v) if noise is None else noise
    sigma = torch.full((count,), 0.5) if sigma is None else sigma
    return Rows(
        v=v, x=(1 - sigma.view(-1, 1, 1)) * x0 + sigma.view(-1, 1, 1) * noise, sigma=sigma, advantages=torch.as_tensor(advantages),
        group=torch.zeros(count, dtype=torch.long) if group is None else group, scored=torch.ones(count, dtype=torch.bool),
        reference=lambda: v_ref, old=lambda: v_old, teacher=lambda: v_ref, mean=mean, mean_old=mean_old, std=torch.full((count,), std),
        step_weight=torch.ones(count), log_ratio=log_ratio, x0=x0, noise=noise,
    )  # fmt: skip


def constant(*values):
    """[R, 1, 1] velocities."""
    return torch.tensor(values).view(-1, 1, 1).clone().requires_grad_(True)


def test_the_registry_has_the_documented_algorithms():
    assert ALL == ["awm", "dgpo", "distill", "dpo", "dppo", "grpo", "guard", "nft"]
    with pytest.raises(ConfigError, match="did you mean 'grpo'"):
        algorithm("gpro")


def test_dppo_drops_only_what_moved_far_and_moves_on():
    mean_old = torch.zeros(6, 1, 1)
    mean = torch.tensor([0.1, 0.1, 0.1, 0.1, 0.001, 0.001]).view(-1, 1, 1).clone().requires_grad_(True)
    log_ratio = torch.tensor([0.2, -0.2, -0.2, 0.2, 0.2, -0.2]).requires_grad_(True)
    advantages = torch.tensor([1.0, 1.0, -1.0, -1.0, 1.0, -1.0])
    loss = algorithm("dppo", threshold=1e-3).loss(
        rows(torch.zeros(6, 1, 1), advantages=advantages, mean=mean, mean_old=mean_old, log_ratio=log_ratio)
    )
    # kl = .1^2 / 2 = 5e-3 is above the threshold, .001^2 / 2 below: rows 0 and 2 go on away and are dropped, 1 and 3 come back
    expected = [0.0, -math.exp(-0.2), 0.0, math.exp(0.2), -math.exp(0.2), math.exp(-0.2)]
    assert loss.tolist() == pytest.approx(expected, rel=1e-6)
    loss.sum().backward()
    assert log_ratio.grad[[0, 2]].tolist() == [0.0, 0.0]
    assert (log_ratio.grad[[1, 3, 4, 5]] != 0).all()


def test_dppo_and_grpo_agree_while_nothing_has_moved():
    advantages, mean = torch.tensor([1.0, -2.0]), torch.ones(2, 1, 1)
    losses = []
    for name in ("dppo", "grpo"):
        log_ratio = torch.zeros(2, requires_grad=True)
        loss = algorithm(name).loss(rows(torch.zeros(2, 1, 1), advantages=advantages, mean=mean, mean_old=mean, log_ratio=log_ratio))
        loss.sum().backward()
        losses.append((loss.tolist(), log_ratio.grad.tolist()))
    assert losses[0] == losses[1]


def test_grpos_step_weights_undo_the_dominance_of_quiet_steps():
    """TempFlow-GRPO: each step's loss times its noise, here over the mean noise of the window."""
    batch = rows(torch.zeros(2, 1, 1), advantages=[1.0, 1.0], log_ratio=torch.zeros(2))
    batch.step_weight = torch.tensor([1.5, 0.5])
    assert algorithm("grpo", step_weights="std").loss(batch).tolist() == [-1.5, -0.5]
    assert algorithm("grpo").loss(batch).tolist() == [-1.0, -1.0]
    with pytest.raises(ValueError, match="step_weights"):
        algorithm("grpo", step_weights="loud")


def test_awm_is_the_advantage_times_the_flow_loss_of_pretraining():
    v = constant(1.0, 2.0)
    advantages, sigma = torch.tensor([1.0, -0.5]), torch.tensor([0.25, 0.5])
    batch = rows(v, advantages=advantages, noise=torch.zeros(2, 1, 1), sigma=sigma)
    loss = algorithm("awm", weight="t").loss(batch)
    assert loss.tolist() == [-1.0, 0.5]  # the ratio of the only update is 1
    loss.sum().backward()
    # d/dv of A w ||v||^2 = 2 A w v: 2 * 1 * .25 * 1 and 2 * -.5 * .5 * 2
    assert v.grad.flatten().tolist() == pytest.approx([0.5, -1.0])


def test_dpo_is_the_logistic_loss_of_the_difference_of_gains():
    v, v_ref = constant(1.0, 2.0), torch.tensor([1.5, 1.0]).view(-1, 1, 1)
    loss = algorithm("dpo", beta=2.0).loss(rows(v, advantages=[1.0, -1.0], v_ref=v_ref))
    # winner's gain 1 - 2.25 = -1.25, loser's 4 - 1 = 3: difference -4.25, and -log sigmoid(4.25), on two rows by halves
    assert loss.sum().item() == pytest.approx(math.log1p(math.exp(-4.25)), rel=1e-5)
    loss.sum().backward()
    weight = 1 / (1 + math.exp(4.25))  # sigmoid(-z), z = 4.25, dz/dv_w = -beta/2 * 2 v_w
    assert v.grad.flatten().tolist() == pytest.approx([weight * 2.0, -weight * 4.0], rel=1e-5)


def test_at_the_start_dpo_knows_nothing_and_pulls_by_half():
    v = constant(1.0, 2.0)
    loss = algorithm("dpo", beta=2.0).loss(rows(v, advantages=[1.0, -1.0], v_ref=v.detach()))
    assert loss.sum().item() == pytest.approx(math.log(2.0), rel=1e-6)


def test_dpo_compares_the_best_with_the_worst_scored_edit_of_a_group():
    advantages = torch.tensor([[0.5, -1.0, 2.0, 0.0], [0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 0.0, 0.0]])
    scored = torch.tensor([[True, True, False, True], [True] * 4, [True] * 4])
    chosen = algorithm("dpo").choose(advantages.masked_fill(~scored, 0.0), scored)
    assert chosen.tolist() == [[True, True, False, False], [False] * 4, [True, True, False, False]]


def test_dgpo_weighs_a_group_by_how_little_it_is_told_apart():
    v, v_ref = constant(1.0, 2.0, 1.0, 1.0), torch.tensor([2.0, 1.0, 1.0, 1.0]).view(-1, 1, 1)
    group = torch.tensor([7, 7, 9, 9])
    loss = algorithm("dgpo", beta=2.0).loss(rows(v, advantages=[1.0, -1.0, 1.0, -1.0], v_ref=v_ref, group=group))
    # group 7: (1 * (1 - 4) - 1 * (4 - 1)) * 2 / 2 = -6; group 9: 0
    told, equal = 1 / (1 + math.exp(6.0)), 0.5
    assert loss.tolist() == pytest.approx([told * 1.0, -told * 4.0, equal, -equal], rel=1e-5)


def test_distillation_is_the_distance_to_the_teacher_wherever_the_student_goes():
    v = constant(1.0, 3.0)
    loss = algorithm("distill").loss(rows(v, advantages=[0.0, 0.0], v_ref=torch.zeros(2, 1, 1)))
    assert loss.tolist() == [1.0, 9.0]
    assert algorithm("distill").choose(torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)).all()
    with pytest.raises(ValueError, match="teacher"):
        algorithm("distill", teacher={"path": "x"})


def peer_inputs():
    """4 rows of [5, 3]: two groups of two; v, v_ref, x0, noise in this order from one generator."""
    generator = torch.Generator().manual_seed(11)
    v, v_ref, x0, noise = (torch.randn(4, 5, 3, generator=generator) for _ in range(4))
    return v, v_ref, x0, noise, torch.tensor([0.7, -0.7, 1.2, -1.2]), torch.tensor([0, 0, 1, 1])


def gradient(name, target, batch, **options):
    """(mean loss over rows, norm of its gradient)."""
    loss = algorithm(name, **options).loss(batch).mean()
    (found,) = torch.autograd.grad(loss, target)
    return loss.item(), found.norm().item()


@pytest.mark.parametrize(
    ("name", "options", "loss", "norm"),
    [
        # Flow-Factory a0b2bc5, trainers/awm.py: compute_weighted_log_prob, mean(-A exp(l - l_old)); gradients at sigma .2 .4 .6 .8
        ("awm", {"weight": "uniform"}, 0.0, 0.4335421323776245),
        ("awm", {"weight": "t"}, 0.0, 0.2561633884906769),
        ("awm", {"weight": "t2"}, 0.0, 0.18004760146141052),
        # Flow-Factory a0b2bc5, trainers/dgpo.py: _compute_group_dgpo_loss, dpo_beta 3
        ("dgpo", {"beta": 3.0}, 0.07386791706085205, 0.2767062187194824),
        # Flow-Factory a0b2bc5, trainers/dpo.py: mean over two pairs, beta 3; ours stands on both rows of a pair by halves
        ("dpo", {"beta": 3.0}, 1.6015336513519287 / 2, 1.1182161569595337 / 2),
    ],
)
def test_losses_and_gradients_of_the_forward_process_are_those_of_peers(name, options, loss, norm):
    v, v_ref, x0, noise, advantages, group = peer_inputs()
    v.requires_grad_(True)
    batch = rows(v, advantages=advantages, v_ref=v_ref, x0=x0, noise=noise, sigma=torch.tensor([0.2, 0.4, 0.6, 0.8]), group=group)
    assert gradient(name, v, batch, **options) == pytest.approx((loss, norm), rel=1e-5, abs=1e-6)


def peer_step():
    """One Gaussian step of std .5 on `peer_inputs()`: (its rows, the mean with gradient)."""
    v, v_ref, x0, noise, advantages, _ = peer_inputs()
    mean_old = x0 + 0.2 * v_ref
    mean = (x0 + 0.2 * v).requires_grad_(True)
    taken = mean_old + 0.5 * noise
    densities = [-((taken - m).square() / 0.5).flatten(1).mean(1) for m in (mean, mean_old)]
    return rows(v, advantages=advantages, mean=mean, mean_old=mean_old, log_ratio=densities[0] - densities[1], std=0.5), mean


def test_dppo_is_that_of_its_authors():
    """UniRL 0c97cfb, algorithms/flowdppo.py: _flowdppo_kl_adv_loss at threshold .15; of two rows that moved far, one comes back."""
    batch, mean = peer_step()
    losses = algorithm("dppo", threshold=0.15).loss(batch)
    assert losses.tolist() == pytest.approx([-0.47969210147857666, 0.6473450660705566, -1.0204821825027466, 0.0], rel=1e-5)
    assert gradient("dppo", mean, batch, threshold=0.15)[1] == pytest.approx(0.19519932568073273, rel=1e-5)


@pytest.mark.parametrize(
    ("name", "loss", "norm"),
    [
        # Flow-Factory a0b2bc5, trainers/grpo.py: optimize of GRPOGuardTrainer and GRPOTrainer on a stub adapter, clip_range .04
        ("guard", 0.014969289302825928, 0.12728896737098694),
        ("grpo", 0.08095644414424896, 0.18273377418518066),
    ],
)
def test_clipped_losses_and_gradients_are_those_of_a_peer(name, loss, norm):
    batch, mean = peer_step()
    assert gradient(name, mean, batch, clip_low=0.04, clip_high=0.04) == pytest.approx((loss, norm), rel=1e-5)


@pytest.mark.parametrize(
    ("beta", "loss", "norm"), [(1.0, 6.974170877491053, 0.6259391903877258), (0.5, 11.621191292073963, 0.4092555642127991)]
)
def test_nft_is_that_of_a_peer(beta, loss, norm):
    """Flow-Factory a0b2bc5, trainers/nft.py: DiffusionNFTTrainer.optimize on a stub adapter, whose sampling policy answers v_ref."""
    v, v_ref, x0, noise, advantages, _ = peer_inputs()
    v.requires_grad_(True)
    batch = rows(v, advantages=advantages, v_old=v_ref, x0=x0, noise=noise, sigma=torch.tensor([0.2, 0.4, 0.6, 0.8]))
    assert gradient("nft", v, batch, beta=beta) == pytest.approx((loss, norm), rel=1e-5)
