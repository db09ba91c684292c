"""Flow-GRPO of an image editor on one screen: plain torch, the embedded world's editor, and the world's truth as the judge.

A flow model carries noise (sigma = 1) to an edit (sigma = 0) along v = dx/dsigma. Noise on some steps makes it a policy with a
density (arXiv 2505.05470, equation 9). With s = sigma, dt = s' - s < 0 and noise level a, a step x -> x' is

    g = a sqrt(s / (1 - s)),   mean = x + [v + g^2 / (2 s) (x + (1 - s) v)] dt,   x' = mean + std e,   std = g sqrt(-dt)      (1)

A group of edits of one task is scored, and each edit is compared with its group (arXiv 2604.27505, section 3.3):

    A_i = (tau_i - mean tau) / (std tau + 1e-4)                                                                               (2)
    loss = max(-A r, -A clip(r, 1 - eps, 1 + eps)) + beta KL,   r = p(x' | x) / p_old(x' | x)                                 (3)
    KL = (dmean/dv)^2 / (2 std^2) |dt| (v - v_ref)^2                                                                          (4)

Densities and KL are means over latent elements, so eps = 1e-4 allows 1e-4 x (number of elements) nats a step.
    python examples/flow_grpo.py           # half a minute on one core; --tiny takes seconds
`editr1 edit-rl` does the same for real editors and a learnt judge, with LoRA, resuming and several processes.
"""

import argparse
import math
from typing import NamedTuple

import torch
from torch import Tensor

from editr1.world.oracle import judge
from editr1.world.tasks import TaskSource
from editr1.world.tiny_editor import TinyEditor, build

NOISE_LEVEL, CLIP, BETA = 0.9, 1e-4, 0.04  # beta: the paper's; the others are ours


class Rollout(NamedTuple):
    """B edits and what training needs of them: S noisy steps, L tokens, D channels."""

    latents: Tensor  # [S + 1, B, L, D]
    log_probs: Tensor  # [S, B], under the policy that sampled
    final: Tensor  # [B, L, D]


def noisy_step(s: float, s_next: float, s_second: float) -> tuple[float, float, float]:
    """Equation 1 as (x_weight, v_weight, std): mean = x_weight x + v_weight v. At s = 1, 1 - s would be 0: it takes the second sigma."""
    g, dt = NOISE_LEVEL * math.sqrt(s / (1 - (s_second if s == 1 else s))), s_next - s
    half = g**2 / (2 * s)
    return 1 + half * dt, (1 + half * (1 - s)) * dt, g * math.sqrt(-dt)


def log_density(x_next: Tensor, mean: Tensor, std: float) -> Tensor:
    """log N(x'; mean, std^2) per element, [B]."""
    return (-((x_next - mean) ** 2) / (2 * std**2) - math.log(std) - math.log(2 * math.pi) / 2).flatten(1).mean(1)


def advantages(tau_CG: Tensor) -> Tensor:
    """Equation 2, a row a task; a group of equal scores teaches nothing."""
    centred = tau_CG - tau_CG.mean(1, keepdim=True)
    return centred / (centred.square().mean(1, keepdim=True).sqrt() + 1e-4)


@torch.no_grad()
def rollout(editor: TinyEditor, cond: dict[str, Tensor], sigmas: tuple[float, ...], noisy: range, noises: list[Tensor]) -> Rollout:
    """An edit a row of `cond`: noise on the steps `noisy`, Euler steps elsewhere. `noises`: the start, then one a noisy step."""
    x, latents, log_probs = noises[0], [], []
    for i in range(len(sigmas) - 1):
        v = editor.velocity(x, sigmas[i], cond)
        if i not in noisy:
            x = x + (sigmas[i + 1] - sigmas[i]) * v
            continue
        x_weight, v_weight, std = noisy_step(sigmas[i], sigmas[i + 1], sigmas[1])
        latents += [] if latents else [x]
        mean = x_weight * x + v_weight * v
        x = mean + std * noises[len(latents)]
        latents.append(x)
        log_probs.append(log_density(x, mean, std))
    return Rollout(torch.stack(latents), torch.stack(log_probs), x)


def update(editor: TinyEditor, reference: TinyEditor, optimizer: torch.optim.Optimizer, cond: dict[str, Tensor], sampled: Rollout,
           sigmas: tuple[float, ...], noisy: range, A_B: Tensor) -> float:  # fmt: skip
    """One optimiser step on equations 3 and 4, their mean over noisy steps and edits. Returns the loss."""
    losses = []
    for n, i in enumerate(noisy):
        x_weight, v_weight, std = noisy_step(sigmas[i], sigmas[i + 1], sigmas[1])
        x, x_next = sampled.latents[n], sampled.latents[n + 1]
        v = editor.velocity(x, sigmas[i], cond)
        ratio = (log_density(x_next, x_weight * x + v_weight * v, std) - sampled.log_probs[n]).exp()
        with torch.no_grad():
            v_ref = reference.velocity(x, sigmas[i], cond)
        kl = v_weight**2 / (2 * std**2) * (sigmas[i] - sigmas[i + 1]) * (v - v_ref).square().flatten(1).mean(1)
        losses.append(torch.maximum(-A_B * ratio, -A_B * ratio.clamp(1 - CLIP, 1 + CLIP)) + BETA * kl)
    loss = torch.stack(losses).mean()
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(editor.transformer.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--tiny", action="store_true", help="2 iterations of 2 tasks x 4 edits")
    iterations, num_tasks, group = (2, 2, 4) if parser.parse_args().tiny else (24, 3, 12)
    torch.manual_seed(0)
    editor, reference, source = build(device="cpu"), build(device="cpu"), TaskSource(seed=1)
    optimizer = torch.optim.AdamW(editor.transformer.parameters(), lr=1e-4)
    plan = editor.plan(72, 72)
    sigmas = editor.sigmas(plan, 6)
    owners = [source.task(i) for i in range(num_tasks) for _ in range(group)]  # the same few tasks, so that the score visibly rises
    cond = editor.encode([task.image for task in owners], [task.instruction for task in owners], plan)
    for iteration in range(iterations):
        noisy = range(start := iteration % 3, start + 2)  # two steps among the first four
        noises = [torch.randn(len(owners), plan.num_tokens, plan.channels) for _ in range(3)]
        sampled = rollout(editor, cond, sigmas, noisy, noises)
        scores = judge([t.image for t in owners], editor.decode(sampled.final, plan), [t.instruction for t in owners])
        tau_CG = torch.tensor([score.utility for score in scores]).view(num_tasks, group)
        loss = update(editor, reference, optimizer, cond, sampled, sigmas, noisy, advantages(tau_CG).flatten())
        print(f"iteration {iteration}: mean score {tau_CG.mean():.2f} of 10, loss {loss:+.5f}")


if __name__ == "__main__":
    main()
