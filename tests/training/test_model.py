"""What of a checkpoint is trained, and in which numbers."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from editr1.placement import Placement
from editr1.stages import gcpo, sft
from editr1.training import model as policy
from editr1.training.model import frozen_dtype, load_model, lora_config
from editr1.training.options import ATTENTION, Machine, Schedule, Trained
from editr1.vlm import local
from tiny_qwen import build_tiny_qwen
from tiny_run import build_tiny_run, build_tiny_verifier
from tiny_vlms import tiny_qwen35


def test_adapters_reach_linear_attention_and_can_be_kept_from_it(tmp_path: Path) -> None:
    pytest.importorskip("transformers.models.qwen3_5")
    from transformers import AutoProcessor

    model, _ = tiny_qwen35(AutoProcessor.from_pretrained(build_tiny_qwen(tmp_path / "tokens")).tokenizer)
    linears = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    language = {name for name in linears if "visual" not in name and "lm_head" not in name}

    def wrapped(trained: Trained) -> set[str]:
        return {name for name in linears if re.fullmatch(lora_config(trained).target_modules, name)}

    assert wrapped(Trained(lora_rank=8)) == language
    assert wrapped(Trained(lora_rank=8, lora_layers=ATTENTION)) == {
        n for n in language if n.endswith(("q_proj", "k_proj", "v_proj", "o_proj"))
    }
    assert wrapped(Trained(lora_rank=8, freeze_vision=False)) == set(linears) - {"lm_head"}
    with pytest.raises(ValueError, match="names no layer"):
        Trained(lora_rank=8, lora_layers=())


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_what_moves_is_float32_whatever_the_checkpoint_is_stored_in(verifier: Path, tmp_path: Path, stored: torch.dtype) -> None:
    load_model(verifier, Trained()).to(stored).save_pretrained(tmp_path / "stored")
    model = load_model(tmp_path / "stored", Trained(), frozen=torch.bfloat16)
    assert {p.dtype for p in model.parameters() if p.requires_grad} == {torch.float32}
    assert {p.dtype for p in model.parameters() if not p.requires_grad} == {torch.bfloat16}
    assert {p.dtype for p in load_model(tmp_path / "stored", Trained(lora_rank=4), frozen=torch.bfloat16).parameters()} == {torch.bfloat16}


def test_a_cpu_keeps_everything_in_float32() -> None:
    assert frozen_dtype(Machine(precision="bfloat16")) == torch.float32 or torch.accelerator.is_available()
    with pytest.raises(ValueError, match="compiled anew"):
        Machine(placement=Placement(compile=True))


@pytest.mark.parametrize("lora_rank", [None, 4])
def test_gcpo_samples_scores_and_learns_with_frozen_weights_in_bfloat16(
    verifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lora_rank: int | None
) -> None:
    """As on a GPU: masters (or adapters) in float32, everything else and all of sampling in bfloat16."""
    seen: dict[str, set[torch.dtype]] = {}
    monkeypatch.setattr(policy, "generation_dtype", lambda arguments: torch.bfloat16)
    monkeypatch.setattr("editr1.training.model.frozen_dtype", lambda machine: torch.bfloat16)
    chat = local.LocalVLM.chat

    def watched(vlm: local.LocalVLM, requests: Any) -> Any:
        seen["sampling"] = {p.dtype for p in vlm.model.parameters()}
        return chat(vlm, requests)

    monkeypatch.setattr(local.LocalVLM, "chat", watched)
    machine = Machine("bfloat16", 4, activation_checkpointing=False, trackers=(), progress=False)
    sizes: dict[str, Any] = {"steps": 1, "pairs_per_step": 2, "num_traces": 2, "generation": gcpo.Generation(max_tokens=6)}
    how: dict[str, Any] = {"trained": Trained(lora_rank=lora_rank), "schedule": Schedule(1e-2, warmup_steps=0), "machine": machine}
    config = gcpo.Config(str(verifier), "compact_direct", share_prompts=True, **sizes, **how)
    saved = gcpo.run(config, build_tiny_run(tmp_path / "run"))
    assert seen["sampling"] == {torch.bfloat16}
    load_model(saved.path, Trained())


def test_workers_read_ahead_and_change_nothing(verifier: Path, tmp_path: Path) -> None:
    weights = []
    for workers in (0, 2):
        machine = Machine(micro_batch=2, activation_checkpointing=False, trackers=(), progress=False, workers=workers)
        config = sft.Config(str(verifier), "compact", steps=3, batch_size=4, schedule=Schedule(1e-3, warmup_steps=0), machine=machine)
        saved = sft.run(config, build_tiny_run(tmp_path / f"run{workers}"))
        weights.append((Path(saved.path) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
