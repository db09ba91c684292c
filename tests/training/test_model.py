"""What of a checkpoint is trained, and in which numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from editr1.training.model import lora_config
from editr1.training.options import ATTENTION, Trained
from tiny_qwen import build_tiny_qwen
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
