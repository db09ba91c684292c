"""GCPO on a tiny run: the stock trainer computes the paper's objective, resumes, and never emits a picture token."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from editr1.config import Component
from editr1.errors import ConfigError, DataError
from editr1.schema import FAILURE_CODES, Judgement, ParseFailure
from editr1.stages import gcpo, sft
from editr1.store import Run, preference_pairs
from editr1.training.options import HeldOut, Loss, Machine, RewardOptions, Schedule, Strata
from editr1.training.rows import read_pairs, read_selected
from killed import kill_after_three_points
from tiny_run import build_tiny_run, build_tiny_verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


@pytest.fixture(scope="module")
def schooled(tmp_path_factory: pytest.TempPathFactory, verifier: Path) -> Path:
    """A verifier that has learnt to state scores, so that traces parse and GCPO has something to do."""
    run_dir = build_tiny_run(tmp_path_factory.mktemp("school") / "run")
    machine = Machine(micro_batch=6, activation_checkpointing=False, trackers=(), progress=False)
    lessons = sft.Config(str(verifier), "compact_direct", "score", steps=60, batch_size=6, schedule=Schedule(5e-3, 1e-2), machine=machine)
    return Path(sft.run(lessons, run_dir).path)


def config(verifier: Path, **changes: object) -> gcpo.Config:
    machine = Machine(micro_batch=4, activation_checkpointing=False, trackers=(), progress=False, save_every=2)
    base = {"steps": 4, "pairs_per_step": 2, "num_traces": 2, "prompt_id": "compact_direct", "machine": machine, "silent_steps": 0}
    how = gcpo.Generation(max_tokens=8)
    schedule = Schedule(lr=1e-3, warmup_steps=1)
    return gcpo.Config(model=str(verifier), generation=how, schedule=schedule, **{**base, **changes})  # type: ignore[arg-type]


def test_gcpo_runs_logs_its_figures_and_saves(tmp_path: Path, verifier: Path) -> None:
    from transformers import AutoModelForImageTextToText

    run_dir = build_tiny_run(tmp_path / "run")
    result = gcpo.run(config(verifier), run_dir)
    curve = Run.open(run_dir).curves("gcpo")
    assert [point["step"] for point in curve] == [1, 2, 3, 4]
    assert {"win_ratio", "loss_ratio", "parse_rate", *(f"failed/{code}" for code in FAILURE_CODES)} <= curve[-1].keys()
    assert {"flat_groups", "weighted_advantage", "trace_tokens", "no_opponent", "entropy"} <= curve[-1].keys()
    assert {f"clip_ratio/{side}" for side in ("low_mean", "high_mean", "region_mean")} <= curve[-1].keys()
    saved = AutoModelForImageTextToText.from_pretrained(result.path)
    assert saved.get_output_embeddings().bias is None
    served = saved.generation_config  # what a server applies to requests that do not say otherwise
    assert (served.top_k, served.top_p, served.temperature, served.repetition_penalty, served.do_sample) == (0, 1.0, 1.0, 1.0, True)
    assert served.eos_token_id is not None


def test_traces_that_nobody_can_read_are_warned_of_and_stop_the_run(
    tmp_path: Path, verifier: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the limit, and at the end of a run that is shorter than it; neither leaves a checkpoint that looks finished."""
    run_dir = build_tiny_run(tmp_path / "run")
    with pytest.raises(DataError, match=r"gcpo: the last 2 steps taught nothing \(no trace could be read"):
        gcpo.run(config(verifier, silent_steps=2), run_dir)
    assert [message for message in caplog.messages if "teaches nothing" in message] == [
        "gcpo: step 1 teaches nothing: no trace could be read, parse rate 0"
    ]
    assert len(Run.open(run_dir).curves("gcpo")) == 2
    with pytest.raises(DataError, match="all 3 steps taught nothing"):
        gcpo.run(config(verifier, steps=3, silent_steps=10, output="short"), run_dir)
    assert not list(run_dir.glob("*/done.json"))
    gcpo.run(config(verifier, steps=1, silent_steps=10, output="try_out"), run_dir)
    assert list(run_dir.glob("*/done.json"))


def test_gcpo_runs_with_shared_prompts(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    gcpo.run(config(verifier, share_prompts=True), run_dir)
    assert [point["step"] for point in Run.open(run_dir).curves("gcpo")] == [1, 2, 3, 4]


def test_watching_held_out_pairs_keeps_the_best_and_changes_no_step(tmp_path: Path, schooled: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "watched", num_tasks=12)
    (run_dir / "07_pairs" / "settings.json").write_text(json.dumps({"held_out_share": 0.3}))
    shutil.copytree(run_dir, tmp_path / "alone")
    watched = gcpo.run(config(schooled, steps=3, held_out=HeldOut(every=1, num_traces=2)), run_dir)
    alone = gcpo.run(config(schooled, steps=3), tmp_path / "alone")
    points = Run.open(run_dir).curves("gcpo/held_out")
    best = json.loads((Path(watched.path) / "best" / "held_out.json").read_text())
    assert [point["step"] for point in points] == [1, 2, 3]
    assert best["pair_accuracy"] == max(point["pair_accuracy"] for point in points)
    assert (Path(watched.path) / "best" / "model.safetensors").exists()
    assert (Path(watched.path) / "model.safetensors").read_bytes() == (Path(alone.path) / "model.safetensors").read_bytes()


def test_pairs_are_drawn_by_what_the_start_says_and_hard_ones_are_watched(tmp_path: Path, schooled: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=12)
    (run_dir / "07_pairs" / "settings.json").write_text(json.dumps({"held_out_share": 0.3}))
    settings = config(
        schooled, steps=1, strata=Strata(shares=(1.0, 0.0, 0.0), edges=(10.0, 10.0)), held_out=HeldOut(every=1, num_traces=2, hard=True)
    )
    saved = Path(gcpo.run(settings, run_dir).path)
    gaps = json.loads((saved / "gaps.json").read_text())
    assert gaps.keys() == {pair.id for pair in read_pairs(Run.open(run_dir))}
    watched = json.loads((saved / "held_out_gaps.json").read_text())
    (point,) = Run.open(run_dir).curves("gcpo/held_out")
    assert point["num_pairs"] == sum(gap is None or gap <= 0 for gap in watched.values())
    with pytest.raises(ValueError, match="pairs called the same"):
        config(schooled, strata=Strata(shares=(1.0, 0.0, 0.0)), reward=RewardOptions(same_tolerance=0.5))


def test_flat_pairs_are_drawn_anew_and_nothing_else_is(tmp_path: Path, schooled: Path) -> None:
    """The first draw of a step is the same with and without; a pair that had a gradient keeps its traces."""
    run = Run.open(build_tiny_run(tmp_path / "run", num_tasks=8))
    settings = config(schooled, pairs_per_step=4, share_prompts=True, machine=Machine(micro_batch=16, activation_checkpointing=False))

    def draw(again: int) -> tuple[list[list[int]], list[bool]]:
        chosen = dataclasses.replace(settings, resample_flat=again)
        trainer, _ = gcpo._trainer(chosen, run, gcpo.pair_rows(run, gcpo.read_pairs(run), chosen.prompt_id, 4, 0))
        rows = [trainer.train_dataset[i] for i in range(8) for _ in range(2)]
        prompts = [with_pictures(row) for row in rows]
        drawn = trainer.rollout_func(prompts, trainer)
        return drawn["completion_ids"], drawn.get("resampled", [False] * 16)

    (first, _), (second, redrawn) = draw(0), draw(2)
    flat = [len({tuple(ids) for ids in first[start : start + 2]}) == 1 for start in range(0, 16, 2)]
    assert any(redrawn)
    assert not all(redrawn)
    for pair in range(4):
        mine = slice(4 * pair, 4 * pair + 4)
        assert len(set(redrawn[mine])) == 1  # whole pairs
        if redrawn[4 * pair]:
            assert first[mine] != second[mine] or (flat[2 * pair] and flat[2 * pair + 1])
        else:
            assert first[mine] == second[mine]


def test_resampling_is_logged_and_trains(tmp_path: Path, schooled: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    gcpo.run(config(schooled, share_prompts=True, resample_flat=1), run_dir)
    assert all(0.0 <= point["resampled"] <= 1.0 for point in Run.open(run_dir).curves("gcpo"))
    with pytest.raises(ValueError, match="needs share_prompts"):
        config(schooled, resample_flat=1)


def with_pictures(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The conversation as TRL hands it to a rollout: pictures in their places."""
    pictures = iter(row["images"])
    return [
        {**message, "content": [{**part, "image": next(pictures)} if part["type"] == "image" else part for part in message["content"]]}
        for message in row["prompt"]
    ]


def test_only_the_first_pairs_are_learnt_where_asked(tmp_path: Path, verifier: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=6)
    assert gcpo.run(config(verifier, max_pairs=2), run_dir).rows == 2


def test_pairs_of_tasks_that_sft_never_saw(tmp_path: Path) -> None:
    run_dir = build_tiny_run(tmp_path / "run", num_tasks=30)
    (run_dir / "07_pairs" / "settings.json").write_text(json.dumps({"held_out_share": 0.3}))
    run = Run.open(run_dir, create=False)
    every, unseen = read_pairs(run), read_pairs(run, unseen_share=0.6)
    assert 0 < len(unseen) < len(every)
    learnt = {row.task.id for row in read_selected(run, held_out_share=0.6)}
    measured = {pair.task.id for pair in preference_pairs(run, "held_out")}
    assert not {pair.task.id for pair in unseen} & (learnt | measured)
    assert {pair.id for pair in unseen} == {pair.id for pair in every if pair.task.id not in learnt}
    assert read_pairs(run, limit=2, unseen_share=0.6) == unseen[:2]
    with pytest.raises(DataError, match=r"0.3 of the tasks measure"):
        read_pairs(run, unseen_share=0.3)


def test_the_stock_trainer_computes_the_papers_objective(tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Advantages and loss of a real step against `objectives/gcpo.py`, on hand-set scores."""
    import torch

    from editr1.objectives import gcpo as equations
    from editr1.training import pair_reward
    from editr1.vlm.base import forbidden_tokens, token_mask

    run = Run.open(build_tiny_run(tmp_path / "run"))
    settings = config(verifier, num_traces=3, machine=Machine(micro_batch=12, activation_checkpointing=False, trackers=(), progress=False))
    trainer, _ = gcpo._trainer(settings, run, gcpo.pair_rows(run, gcpo.read_pairs(run), settings.prompt_id, 2, 0))
    scores = iter([7.0, 5.0, None, 5.0, 6.0, 2.0, 4.0, 4.0, 4.0, 1.0, 9.0, 4.0])  # pair 0: w, l; pair 1: w, l

    def judged(*_: object, **__: object) -> object:
        score = next(scores)
        return Judgement((), score) if score is not None else ParseFailure("NO_SCORE")

    monkeypatch.setattr(pair_reward, "parse", judged)
    rows = [trainer.train_dataset[i] for i in range(4) for _ in range(3)]
    scored = trainer._generate_and_score_completions(rows)
    nan = float("nan")
    tau_w, tau_l = torch.tensor([[7.0, 5.0, nan], [4.0, 4.0, 4.0]]), torch.tensor([[5.0, 6.0, 2.0], [1.0, 9.0, 4.0]])
    ratio_w, ratio_l = equations.win_ratio(tau_w, tau_l), equations.loss_ratio(tau_l, tau_w)
    expected = equations.advantages(torch.stack([ratio_w, ratio_l], dim=1).flatten(0, 1)).flatten()
    torch.testing.assert_close(scored["advantages"].cpu(), expected)

    torch.manual_seed(0)
    scored["old_per_token_logps"] = -3 + torch.randn(scored["completion_mask"].shape).to(scored["completion_mask"].device)
    trainer.current_gradient_accumulation_steps = 1
    loss = trainer._compute_loss(trainer.model, scored)
    ids = torch.cat([scored["prompt_ids"], scored["completion_ids"]], 1)
    mask = torch.cat([scored["prompt_mask"], scored["completion_mask"]], 1)
    pictures = {name: scored[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids")}
    logits = trainer.model(input_ids=ids, attention_mask=mask, **pictures).logits[:, scored["prompt_ids"].shape[1] - 1 : -1]
    logits = logits + token_mask(forbidden_tokens(trainer.model, trainer.processing_class), logits.shape[-1], logits)
    logp = logits.log_softmax(-1).gather(2, scored["completion_ids"][:, :, None])[:, :, 0]
    old, A, mask = scored["old_per_token_logps"], expected.to(logp.device), scored["completion_mask"].float()
    reference = equations.gcpo_loss(logp, old, A, mask, settings.clip)
    torch.testing.assert_close(loss, reference)


def test_the_trainer_learns_from_the_advantages_of_both_images_and_a_kl_term(
    tmp_path: Path, verifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PD-GRPO on hand-set scores: TRL's own advantages would be 0 for the image whose traces agree."""
    import torch

    from editr1.training import pair_reward

    run = Run.open(build_tiny_run(tmp_path / "run"))
    machine = Machine(micro_batch=4, activation_checkpointing=False, trackers=(), progress=False)
    settings = config(verifier, pairs_per_step=1, machine=machine, method=Component("pd_grpo"), share_prompts=True)
    trainer, _ = gcpo._trainer(settings, run, gcpo.pair_rows(run, gcpo.read_pairs(run), settings.prompt_id, 1, 0))
    scores = iter([5.0, 5.0, 1.0, 9.0])
    monkeypatch.setattr(pair_reward, "parse", lambda *_, **__: Judgement((), next(scores)))
    scored = trainer._generate_and_score_completions([trainer.train_dataset[i] for i in range(2) for _ in range(2)])
    expected = torch.tensor([-0.25, -0.25, 0.75, -0.25]) / 0.5001
    torch.testing.assert_close(scored["advantages"].cpu(), expected, rtol=1e-4, atol=1e-6)
    own, _, _ = trainer._get_per_token_logps_and_entropies(
        trainer.model,
        torch.cat([scored["prompt_ids"], scored["completion_ids"]], 1),
        torch.cat([scored["prompt_mask"], scored["completion_mask"]], 1),
        scored["completion_ids"].shape[1],
        **{name: scored[name] for name in ("pixel_values", "image_grid_thw", "mm_token_type_ids", "num_images")},
    )
    mask = scored["completion_mask"].bool()
    torch.testing.assert_close(scored["ref_per_token_logps"][mask], own.detach()[mask], rtol=1e-4, atol=1e-4)  # the start: no divergence


def test_the_kl_term_of_a_resumed_run_is_to_the_start(tmp_path: Path, schooled: Path) -> None:
    import torch

    run_dir = build_tiny_run(tmp_path / "run")
    run = Run.open(run_dir)
    shutil.copytree(schooled, tmp_path / "later")
    settings = config(schooled, loss=Loss(kl=0.1))
    rows = gcpo.pair_rows(run, gcpo.read_pairs(run), settings.prompt_id, 4, 0)
    trainer, _ = gcpo._trainer(settings, run, rows, str(tmp_path / "later"))
    (tmp_path / "later").rename(tmp_path / "gone")
    reference, start = dict(trainer.ref_model.named_parameters()), gcpo._trainer(settings, run, rows)[0].ref_model
    assert trainer.ref_model.config._name_or_path == str(schooled)
    assert all(torch.equal(reference[name], value) for name, value in start.named_parameters())


def test_choices_of_the_loss_reach_trl(verifier: Path) -> None:
    default = gcpo._objective(config(verifier))
    assert (default["beta"], default["scale_rewards"], default["loss_type"]) == (0.0, "none", "grpo")
    assert (default["importance_sampling_level"], default["epsilon"], default["epsilon_high"]) == ("token", 0.2, 0.2)
    chosen = gcpo._objective(config(verifier, method=Component("irpo"), loss=Loss("luspo", "sequence", clip_high=0.28, kl=0.04)))
    assert (chosen["loss_type"], chosen["importance_sampling_level"], chosen["epsilon_high"]) == ("luspo", "sequence", 0.28)
    assert (chosen["beta"], chosen["scale_rewards"]) == (0.04, "group")
    joint = gcpo._objective(config(verifier, method=Component("pd_grpo")))
    assert (joint["beta"], joint["scale_rewards"]) == (0.003, "none")  # scaled by the reward function, over both images
    with pytest.raises(ValueError, match="weigh a trace by its length"):
        Loss("dapo", "sequence")


@pytest.mark.parametrize("method", ["pd_grpo", "irpo"])
def test_other_ways_run_and_log_the_same_figures(tmp_path: Path, schooled: Path, method: str) -> None:
    run_dir = build_tiny_run(tmp_path / "run")
    gcpo.run(config(schooled, steps=2, method=Component(method), share_prompts=True), run_dir)
    curve = Run.open(run_dir).curves("gcpo")
    assert {"win_ratio", "loss_ratio", "parse_rate", "flat_groups", "kl"} <= curve[-1].keys()
    assert curve[0]["grad_norm"] > 0


def test_training_can_be_kept_to_the_last_blocks(verifier: Path) -> None:
    from editr1.training.model import load_model
    from editr1.training.options import Trained

    model = load_model(verifier, Trained(last_blocks=1))
    last = len(model.get_decoder().layers) - 1
    moving = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert moving == {name for name, _ in model.named_parameters() if re.search(rf"layers\.{last}\.|lm_head|language_model\.norm", name)}
    assert any("mlp" in name for name in moving)
    with pytest.raises(ConfigError, match="last_blocks is 9"):
        load_model(verifier, Trained(last_blocks=9))
    with pytest.raises(ValueError, match="set one of them"):
        Trained(last_blocks=1, lora_rank=4)


def test_adapters_can_be_trained_with_shared_prompts(tmp_path: Path, schooled: Path) -> None:
    from editr1.training.options import Trained

    settings = config(schooled, steps=2, share_prompts=True, trained=Trained(lora_rank=4))
    saved = gcpo.run(settings, build_tiny_run(tmp_path / "run"))
    assert (Path(saved.path) / "model.safetensors").exists()
    assert not list(Path(saved.path).glob("adapter*")), "the adapters are merged"


def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(tmp_path: Path, schooled: Path) -> None:
    """SIGKILL between two checkpoints, and the weights come out bit for bit the same."""
    run_dir = build_tiny_run(tmp_path / "whole")
    shutil.copytree(run_dir, tmp_path / "killed")
    whole = gcpo.run(config(schooled, steps=5), run_dir)
    points = Run.open(run_dir).curves("gcpo")
    assert any(point["grad_norm"] > 0 for point in points[:2])
    assert any(point["grad_norm"] > 0 for point in points[2:])  # otherwise nothing would be shown
    code = (
        "import sys; from pathlib import Path; from test_gcpo import config; from editr1.stages import gcpo\n"
        "gcpo.run(config(Path(sys.argv[1]), steps=5), Path(sys.argv[2]))"
    )
    kill_after_three_points(code, [schooled, tmp_path / "killed"], Path(__file__).parent, tmp_path / "killed" / "metrics.jsonl")
    assert not (tmp_path / "killed" / "08_rrm_gcpo" / "done.json").exists()
    resumed = gcpo.run(config(schooled, steps=5), tmp_path / "killed")
    assert (Path(resumed.path) / "model.safetensors").read_bytes() == (Path(whole.path) / "model.safetensors").read_bytes()


def test_thinking_reaches_the_trainers_template(verifier: Path) -> None:
    assert gcpo._objective(config(verifier, thinking=False))["chat_template_kwargs"] == {"enable_thinking": False}
    assert gcpo._objective(config(verifier))["chat_template_kwargs"] == {}


def test_a_checkpoint_is_trained_as_it_was_taught_to_think(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "taught").mkdir()
    (tmp_path / "taught" / "settings.json").write_text(json.dumps({"prompt_id": "compact_direct", "thinking": False}))
    monkeypatch.setattr("editr1.training.trainer.train", lambda run, stage, output, made_from, *_: made_from)
    monkeypatch.setattr("editr1.training.trainer.lasting", lambda run, config, *_, **__: config)
    run_dir = build_tiny_run(tmp_path / "run")
    settings = config(tmp_path / "taught")
    assert gcpo.run(settings, run_dir).thinking is False  # type: ignore[attr-defined]
    assert gcpo.run(dataclasses.replace(settings, thinking=True), run_dir).thinking is True  # type: ignore[attr-defined]


def test_a_dry_run_counts_the_last_batch_too(tmp_path: Path) -> None:
    told = gcpo.plan(gcpo.Config("none", steps=5, updates_per_batch=2, pairs_per_step=2, num_traces=2), tmp_path)
    assert any("24 traces" in line for line in told)  # steps 1, 3 and 5 draw 2 x 2 x 2
