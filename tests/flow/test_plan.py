"""The figures of --dry-run against hand values, and every recipe of editor RL."""

import dataclasses
from pathlib import Path

import pytest

from editr1.config import Component, load_recipe, section
from editr1.errors import ConfigError
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.plan import count_evaluations, describe_plan, memory_of, read_footprint

ROOT = Path(__file__).parents[2]
RECIPES = sorted([*(ROOT / "recipes").glob("edit_rl_*.yaml"), *(ROOT / "recipes" / "paper").glob("edit_rl_*.yaml")])
KONTEXT = Component("kontext")
JUDGE = Component("editr1.judge.rrm:build")


def test_kontext_at_512_pixels_has_its_known_sizes():
    lines = "\n".join(describe_plan(Config(KONTEXT, JUDGE)))
    # 512 / 16 = 32, 32 x 32 = 1024 tokens of 64 channels; the source at the same size; T5 takes 512
    assert "1024 target + 1024 source + up to 512 text = 2560; 65536 latent elements" in lines
    # 48 x 24 = 1152 edits; x 10 steps sampled; x 2 trained; x 2 reference
    assert "11520 sampling + 2304 trained + 2304 reference = 14 a sample; encodes: 48; decodes and judged edits: 1152" in lines
    assert "6.55 / 6.55 nats" in lines  # 1e-4 x 65536
    # (11520 + 2304 + 3 x 2304) forwards x 2 x 11.9e9 x 2560 FLOP / 4e14 / 3600 s
    assert "estimate: 0.88 GPU-hours" in lines
    assert "the run: 263 GPU-hours, 263 hours on 1 card(s)" in lines  # x 300 iterations


# Measured on one H100, torch 2.11: peak of an iteration of one context; Qwen-Image-Edit without its text encoder.
@pytest.mark.parametrize(
    ("recipe", "changes", "peak"),
    [
        ("edit_rl_kontext_80gb.yaml", {}, 47.5),
        ("paper/edit_rl_kontext.yaml", {}, 61.9),
        ("edit_rl_qwen_image_edit_80gb.yaml", {"cache_encodings": True}, 49.2),
    ],
)
def test_the_memory_of_the_recipes_is_told_within_15_percent_of_what_was_measured(recipe, changes, peak):
    config = section(load_recipe(ROOT / "recipes" / recipe), "edit_rl", Config)
    told = memory_of(dataclasses.replace(config, contexts=1, **changes))
    assert told.total == pytest.approx(peak, rel=0.15)


def test_sharding_divides_the_weights_and_full_fine_tuning_fits_no_single_card(monkeypatch):
    whole = memory_of(Config(KONTEXT, JUDGE))
    monkeypatch.setenv("WORLD_SIZE", "8")
    shared = memory_of(Config(KONTEXT, JUDGE, training=Training(shard=True)))
    assert whole.weights - shared.weights == pytest.approx(11.9e9 * 2 * 7 / 8 / 2**30, rel=1e-3)
    full = memory_of(Config(KONTEXT, JUDGE, training=Training(weights="full")))
    assert full.optimizer == pytest.approx(11.9e9 * 8 / 2**30)
    assert full.total > 200
    spread = memory_of(Config(KONTEXT, JUDGE, training=Training(weights="full", shard=True)))
    assert (spread.gradients, spread.optimizer) == (pytest.approx(full.gradients / 8), pytest.approx(full.optimizer / 8))
    kept = memory_of(Config(KONTEXT, JUDGE, training=Training(weights="full", shard=True, zero=2)))
    assert (kept.gradients, kept.optimizer) == (spread.gradients, spread.optimizer)
    assert kept.weights - spread.weights == pytest.approx(11.9e9 * 2 / 2**30)
    for without in (Training(shard=True, zero=2), Training(weights="full", zero=2)):
        with pytest.raises(ValueError, match="shard: true and weights: full"):
            Config(KONTEXT, JUDGE, training=without)
    assert memory_of(Config(Component("editr1.world.tiny_editor:build"), JUDGE)) is None


def test_a_squared_error_is_not_called_nats():
    lines = "\n".join(describe_plan(Config(KONTEXT, JUDGE, sampling=Sampling(kind="cps", level=0.5, log_prob="squared_error"))))
    assert "no density" in lines
    assert "nats a step" not in lines


def test_twice_the_side_is_four_times_the_tokens_and_the_nats():
    lines = "\n".join(describe_plan(Config(KONTEXT, JUDGE, height=1024, width=1024)))
    assert "4096 target + 4096 source" in lines
    assert "26.2 / 26.2 nats" in lines


def test_a_source_of_one_megapixel_is_counted():
    config = Config(Component("kontext", {"condition_area": 1024 * 1024}), JUDGE)
    assert "1024 target + 4096 source" in "\n".join(describe_plan(config))


def test_guidance_doubles_the_evaluations():
    config = Config(Component("qwen_edit", {"true_cfg": 4.0}), JUDGE)
    assert read_footprint(config).forwards_per_velocity == 2
    assert "23040 sampling" in "\n".join(describe_plan(config))


def test_kl_conversions_are_those_of_the_window():
    config = Config(KONTEXT, JUDGE, sampling=Sampling(steps=6, window=2, window_kind="fixed", first=1, last=3))
    lines = "\n".join(describe_plan(config))
    assert "step 1 (sigma 0.904): latent_dtfree 0.00169" in lines
    assert "step 2 (sigma 0.790): latent_dtfree 0.0061" in lines


def test_klein_and_qwen_have_their_hand_values():
    """384 / 16 = 24, 576 tokens; klein packs 128 channels, Qwen 64; 6 x 8 = 48 and 8 x 8 = 64 edits."""
    klein = "\n".join(describe_plan(section(load_recipe(ROOT / "recipes" / "edit_rl_klein_small_gpu.yaml"), "edit_rl", Config)))
    assert "576 target + 576 source + up to 256 text = 1408; 73728 latent elements" in klein
    assert "480 sampling + 96 trained + 0 reference = 12 a sample; encodes: 6; decodes and judged edits: 48" in klein
    assert "7.37 / 7.37 nats" in klein  # 1e-4 x 73728
    assert "KL: off" in klein
    qwen = "\n".join(describe_plan(section(load_recipe(ROOT / "recipes" / "edit_rl_qwen_image_edit_80gb.yaml"), "edit_rl", Config)))
    # the VL encoder reads the source at 384 x 384: (384 / 28)^2 = 188 picture tokens beside 256 of words
    assert "576 target + 576 source + up to 444 text = 1596; 36864 latent elements" in qwen
    # 8 members are one for 2 of 8 steps on average, and in one of 2 trained rows: 512 - 2 x 56, 128 - 56
    assert "400 sampling + 72 trained + 0 reference = 7.38 a sample" in qwen
    # (400 + 3 x 72 + 72 recomputed) forwards x 2 x 20.4e9 x 1596 FLOP / 4e14 / 3600 s
    assert "estimate: 0.031 GPU-hours" in qwen


@pytest.mark.parametrize("override", ["edit_rl.groupsize=4", "edit_rl.training.betta=0", "edit_rl.sampling.windows=1"])
def test_a_misspelt_key_is_refused(override):
    recipe = load_recipe(ROOT / "recipes" / "paper" / "edit_rl_kontext.yaml", [override])
    with pytest.raises(ConfigError, match="did you mean"):
        section(recipe, "edit_rl", Config)


def test_a_short_window_costs_half_of_training_all_steps():
    config = Config(KONTEXT, JUDGE)
    ours = count_evaluations(config).per_trained_sample(config.contexts * config.group_size)
    assert ours <= (10 + 9 + 9) / 2  # all 10 steps: 10 sampled, 9 trained, 9 reference
    recipe = section(load_recipe(ROOT / "recipes" / "paper" / "edit_rl_kontext.yaml"), "edit_rl", Config)
    counts, samples = count_evaluations(recipe), 48 * 24
    # up to the first noisy step (on average the second and a half) and at it, 24 members are one: 10 - 2.5 x 23 / 24, and 2 - 23 / 24
    assert counts.rollout / samples == pytest.approx(10 - 2.5 * 23 / 24)
    assert counts.trained / samples == counts.reference / samples == pytest.approx(2 - 23 / 24)
    assert counts.forward_equivalents <= samples * (6 + 3 * 5 + 5) / 2  # half of the loop that trains all of 6 steps with a reference pass
    nft = Config(KONTEXT, JUDGE, training=Training(algorithm=Component("nft"), beta=0.0))
    assert count_evaluations(nft).reference == 1152 * 2  # the old policy's pass


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_every_recipe_is_valid_and_can_be_planned(path):
    config = section(load_recipe(path), "edit_rl", Config)
    assert len(describe_plan(config)) >= 5


@pytest.mark.parametrize("name", ["kontext", "qwen_image_edit"])
def test_the_paper_recipes_state_the_papers_values(name):
    config = section(load_recipe(ROOT / "recipes" / "paper" / f"edit_rl_{name}.yaml"), "edit_rl", Config)
    assert config.group_size == 24
    assert (config.training.beta, config.training.kl, config.training.std) == (0.04, "latent_dtfree", "group")
