"""Dry runs of SFT and GCPO tell what a card must hold, for real models and for a checkpoint that lies here."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.cli import main
from editr1.errors import ConfigError
from editr1.memory import Layout
from editr1.stages import gcpo, sft
from editr1.training import cost
from editr1.training.options import Loss, Machine, Trained
from tiny_run import build_tiny_verifier

SEVEN = "Qwen/Qwen2.5-VL-7B-Instruct"
RECIPES = Path(__file__).parents[2] / "recipes"


def test_seven_billion_weights_in_float32_with_adamw_are_more_than_a_card() -> None:
    """Sixteen bytes a trained parameter, by hand; eight cards share them; adapters leave the weights at two bytes."""
    config = sft.Config(SEVEN, machine=Machine(precision="bfloat16", micro_batch=2))
    verifier = cost.KNOWN["Qwen2.5-VL-7B"]
    whole, shared = (sft._job(config).memory(verifier, layout) for layout in (Layout(), Layout(8, sharded=True)))
    states = (16 * 7.61e9 + 2 * 0.68e9) / 2**30
    assert whole.total - whole.activations == pytest.approx(states, rel=0.01)
    assert shared.total - shared.activations == pytest.approx(states / 8, rel=0.01)
    adapters = sft._job(sft.Config(SEVEN, trained=Trained(lora_rank=64), machine=config.machine)).memory(verifier, Layout())
    assert adapters.weights == pytest.approx(2 * 8.29e9 / 2**30, rel=0.05)
    assert adapters.total < 25


def test_a_colocated_engine_takes_its_share_and_sampling_its_cache() -> None:
    verifier, machine = cost.KNOWN["Qwen2.5-VL-7B"], Machine(precision="bfloat16", micro_batch=2)
    colocated = gcpo.Config(SEVEN, generation=gcpo.Generation(engine="vllm_colocate", vllm_memory=0.35), machine=machine)
    assert gcpo._job(colocated).memory(verifier, Layout(8, sharded=True), card=80).engine == pytest.approx(28)
    plain = gcpo._job(gcpo.Config(SEVEN, machine=machine)).memory(verifier, Layout(8, sharded=True))
    assert plain.copy == pytest.approx(2 * 8.29e9 / 2**30)  # gathered in bfloat16 while traces are sampled
    assert plain.total == pytest.approx(
        plain.weights + plain.gradients + plain.optimizer + max(plain.activations, plain.kv_cache + plain.prefill + plain.copy)
    )
    with_kl = gcpo._job(gcpo.Config(SEVEN, machine=machine, loss=Loss(kl=0.003))).memory(verifier, Layout(8, sharded=True))
    assert with_kl.weights - plain.weights == pytest.approx(4 * 8.29e9 / 8 / 2**30)


@pytest.mark.parametrize(("share", "card"), [(0.35, 24.0), (0.1, 80.0), (0.2, 80.0)])
def test_a_share_that_does_not_hold_the_engine_is_refused(tmp_path: Path, share: float, card: float) -> None:
    """7B in bfloat16 take 15.4 GiB, beside what is trained: vLLM would die of it at its start."""
    how = gcpo.Generation(engine="vllm_colocate", vllm_memory=share)
    config = gcpo.Config(SEVEN, generation=how, machine=Machine(precision="bfloat16"))
    if share * card > 15.6:
        assert gcpo.memory(config, tmp_path, card) is not None
    else:
        with pytest.raises(ConfigError, match=r"colocated vLLM needs 15\..*raise it, or set engine to"):
            gcpo.memory(config, tmp_path, card)
        elsewhere = gcpo.Config(SEVEN, generation=gcpo.Generation(engine="vllm_server", vllm_url="http://10.0.0.2:8000"))
        assert gcpo.memory(elsewhere, tmp_path, card) is not None


def test_a_checkpoint_folder_tells_its_own_sizes(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    folder = build_tiny_verifier(tmp_path / "verifier")
    model, found = AutoModelForImageTextToText.from_pretrained(folder), cost.sizes(folder)
    assert found is not None
    assert found.text.parameters == sum(p.numel() for p in model.parameters())
    assert found.vision == sum(p.numel() for name, p in model.named_parameters() if "visual" in name)
    text = model.config.get_text_config()
    assert (found.text.layers, found.text.hidden) == (text.num_hidden_layers, text.hidden_size)
    assert cost.sizes("someone/unheard-of") is None


def test_the_command_prints_memory_and_refuses_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sft", "--config", str(RECIPES / "paper" / "sft_qwen25vl_7b.yaml"), "--run", str(tmp_path / "run"), "--dry-run"]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert "optimizer 56.7" in told
    assert "on 8 cards, sharded: " in told
    assert "GPU-hours" in told
    assert main([*command, "--gpu-memory", "80GiB"]) != 0
    assert "largest part is optimizer" in capsys.readouterr().err
    assert main([*command, "--gpu-memory", "80GiB", "--set", "sft.trained.lora_rank=64"]) == 0
    assert main([*command, "--gpu-memory", "80GiB", "--set", "sft.model=someone/unheard-of"]) != 0
