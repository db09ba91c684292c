"""Schedules: parity with the diffusers scheduler, known values, and refusals."""

import numpy as np
import pytest

from editr1.objectives import schedule
from editr1.objectives.schedule import Schedule


def diffusers_sigmas(num_steps, mu=None, **config):
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler(**config)
    scheduler.set_timesteps(sigmas=np.linspace(1.0, 1.0 / num_steps, num_steps), mu=mu)
    return scheduler.sigmas.tolist()


@pytest.mark.parametrize("num_steps", [6, 10, 28, 50])
@pytest.mark.parametrize("num_tokens", [36, 1024, 4096])
def test_flux_qwen_and_flux2_schedules_equal_the_diffusers_scheduler(num_steps, num_tokens):
    from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu

    dynamic = {"use_dynamic_shifting": True, "time_shift_type": "exponential"}
    pairs = [
        (schedule.flux_schedule(num_steps, num_tokens), diffusers_sigmas(num_steps, schedule.flux_mu(num_tokens), **dynamic)),
        (
            schedule.qwen_schedule(num_steps, num_tokens),
            diffusers_sigmas(num_steps, schedule.flux_mu(num_tokens, max_shift=0.9, max_tokens=8192), shift_terminal=0.02, **dynamic),
        ),
        (
            schedule.flux2_schedule(num_steps, num_tokens),
            diffusers_sigmas(num_steps, compute_empirical_mu(num_tokens, num_steps), **dynamic),
        ),
        (schedule.static_schedule(num_steps, 3.0), diffusers_sigmas(num_steps, shift=3.0)),
    ]
    for ours, theirs in pairs:
        assert ours.sigmas == pytest.approx(theirs, abs=2e-6)


def test_known_values_of_kontext_and_qwen_at_512_pixels():
    kontext = [1, 0.944, 0.882, 0.814, 0.738, 0.652, 0.556, 0.446, 0.319, 0.173, 0]
    qwen = [1, 0.929, 0.851, 0.767, 0.673, 0.570, 0.455, 0.327, 0.183, 0.020, 0]
    assert schedule.flux_schedule(10, 1024).sigmas == pytest.approx(kontext, abs=6e-4)
    assert schedule.qwen_schedule(10, 1024).sigmas == pytest.approx(qwen, abs=6e-4)


def test_a_terminal_sigma_with_one_step_is_refused():
    with pytest.raises(ValueError, match="at least 2 steps"):
        schedule.qwen_schedule(1, 1024)


@pytest.mark.parametrize("sigmas", [(1.0,), (1.0, 0.5), (1.0, 1.0, 0.0), (1.2, 0.0)])
def test_a_schedule_that_does_not_fall_from_one_to_zero_is_refused(sigmas):
    with pytest.raises(ValueError, match="falls strictly"):
        Schedule(sigmas)


def test_a_step_beyond_the_last_is_refused():
    with pytest.raises(IndexError):
        Schedule((1.0, 0.0)).pair(1)
