"""Forbidden tokens have probability 0 in the policy that is trained, however the output layer is spread over processes."""

from __future__ import annotations

import enum
import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import get_peft_model
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from trl.trainer import utils as trl_utils

from editr1.errors import ConfigError
from editr1.training.model import load_model, load_processor, lora_config, mask_scores, save_checkpoint
from editr1.training.options import Trained
from editr1.vlm.base import NEVER, forbidden_tokens, token_mask
from tiny_run import build_tiny_verifier


@pytest.fixture(scope="module")
def verifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_tiny_verifier(tmp_path_factory.mktemp("verifier"))


def batch() -> dict[str, Any]:
    torch.manual_seed(0)
    ids = torch.randint(10, 60, (2, 12))
    labels = ids.clone()
    labels[:, :5] = -100
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}


def scoring(verifier: Path) -> tuple[Any, list[int]]:
    """A model as GCPO scores with it, and the tokens that are forbidden there."""
    model = load_model(verifier, Trained())
    forbidden = [*forbidden_tokens(model, load_processor(verifier)), 11]  # 11 stands among the labels
    trl_utils.add_fused_lm_head(model, temperature=0.7, outputs=("log_probs", "entropy"))
    mask_scores(model, forbidden)
    return model, forbidden


def test_scores_are_those_of_the_masked_logits(verifier: Path) -> None:
    model, forbidden = scoring(verifier)
    inputs = batch()
    out = model(**inputs, fused_lm_head=True)
    logits = model(input_ids=inputs["input_ids"], attention_mask=inputs["attention_mask"]).logits[:, :-1]
    logp = ((logits + token_mask(forbidden, logits.shape[-1], logits)) / 0.7).log_softmax(-1)
    learnt = inputs["labels"][:, 1:] != -100
    expected = logp.gather(2, inputs["input_ids"][:, 1:, None])[:, :, 0]
    possible = learnt & (inputs["input_ids"][:, 1:] != 11)
    torch.testing.assert_close(out.log_probs[possible], expected[possible])
    torch.testing.assert_close(out.entropy[learnt], -(logp.exp() * logp).sum(-1)[learnt])
    assert (out.log_probs[learnt & ~possible] < NEVER / 2).all()
    assert not any("bias" in name and "lm_head" in name for name in model.state_dict())
    assert "get_output_embeddings" not in vars(model)


def test_the_sets_hold_pictures_and_control_tokens_but_no_end(verifier: Path) -> None:
    model, processor = load_model(verifier, Trained()), load_processor(verifier)
    forbidden = forbidden_tokens(model, processor)
    assert {model.config.image_token_id, model.config.video_token_id, processor.tokenizer.pad_token_id} <= set(forbidden)
    assert processor.tokenizer.eos_token_id not in forbidden


@pytest.mark.parametrize("rank", [None, 2])
def test_no_taste_of_a_base_model_is_saved(verifier: Path, tmp_path: Path, rank: int | None) -> None:
    """vLLM would apply the file to every request: with top_k 1, K traces are one trace."""
    taste = {"top_k": 1, "top_p": 0.8, "temperature": 0.1, "repetition_penalty": 1.05, "do_sample": True}
    base, saved = tmp_path / "base", tmp_path / "saved"
    shutil.copytree(verifier, base)
    before = json.loads((base / "generation_config.json").read_text())
    (base / "generation_config.json").write_text(json.dumps(before | taste))
    trained = Trained(lora_rank=rank)
    model = load_model(base, trained)
    save_checkpoint(get_peft_model(model, lora_config(trained)) if rank else model, load_processor(base), saved)
    told = json.loads((saved / "generation_config.json").read_text())
    assert told["eos_token_id"] == before["eos_token_id"]
    assert {name: told.get(name, 1.0) for name in taste} == {
        "top_k": 0, "top_p": 1.0, "temperature": 1.0, "repetition_penalty": 1.0, "do_sample": True
    }  # fmt: skip


def test_an_output_layer_with_a_bias_is_refused(verifier: Path) -> None:
    model = load_model(verifier, Trained())
    head = model.get_output_embeddings()
    head.bias = torch.nn.Parameter(torch.zeros(head.weight.shape[0]))
    with pytest.raises(ConfigError, match="has a bias"):
        mask_scores(model, [1])


def test_a_layer_that_fsdp2_shards_scores_and_learns_like_a_whole_one(verifier: Path, tmp_path: Path) -> None:
    """One gloo process, wrapped as accelerate wraps a model; every weight is a DTensor."""
    whole, _ = scoring(verifier)
    expected = whole(**batch(), fused_lm_head=True)
    expected.loss.backward()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        model, _ = scoring(verifier)
        decoder, head = model.get_decoder(), model.get_output_embeddings()
        tied = model.get_input_embeddings().weight is head.weight
        for layer in decoder.layers:
            fully_shard(layer, mesh=mesh)
        fully_shard(
            [decoder.norm, model.get_input_embeddings(), head] if tied else [decoder.norm, head], mesh=mesh, reshard_after_forward=False
        )
        fully_shard(model, mesh=mesh)
        found = model(**batch(), fused_lm_head=True)
        found.loss.backward()
        torch.testing.assert_close(found.log_probs, expected.log_probs)
        gradients = {name: p.grad.full_tensor() for name, p in model.named_parameters() if p.grad is not None}
        wanted = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
        assert gradients.keys() == wanted.keys()
        for name, gradient in wanted.items():
            torch.testing.assert_close(gradients[name], gradient)
    finally:
        torch.distributed.destroy_process_group()


def test_a_layer_that_zero3_keeps_elsewhere_is_gathered_without_the_mask(verifier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DeepSpeed is no dependency: the stub has what TRL reads of it, and the weight what DeepSpeed puts on a parameter."""

    class ZeroParamStatus(enum.Enum):
        AVAILABLE, NOT_AVAILABLE = 1, 2

    gathered: list[Any] = []

    class GatheredParameters:
        """Makes the parameters whole, as DeepSpeed does by a collective."""

        def __init__(self, parameters: list[Any]) -> None:
            gathered.extend(parameters)
            self.parameters = parameters

        def __enter__(self) -> None:
            for parameter in self.parameters:
                parameter.data = parameter.whole

        def __exit__(self, *_: object) -> None:
            return None

    stub = types.ModuleType("deepspeed")
    stub.zero = types.SimpleNamespace(GatheredParameters=GatheredParameters)  # type: ignore[attr-defined]
    parameters = types.ModuleType("deepspeed.runtime.zero.partition_parameters")
    parameters.ZeroParamStatus = ZeroParamStatus  # type: ignore[attr-defined]
    for name in ("deepspeed.runtime", "deepspeed.runtime.zero"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, "deepspeed", stub)
    monkeypatch.setitem(sys.modules, "deepspeed.runtime.zero.partition_parameters", parameters)
    whole, _ = scoring(verifier)
    expected = whole(**batch(), fused_lm_head=True).log_probs
    model, _ = scoring(verifier)
    weight = model.get_output_embeddings().weight
    weight.whole, weight.ds_status = weight.data, ZeroParamStatus.NOT_AVAILABLE
    weight.data = torch.empty(0)
    monkeypatch.setattr("transformers.integrations.deepspeed.is_deepspeed_zero3_enabled", lambda: True)
    found = model(**batch(), fused_lm_head=True).log_probs
    assert [parameter is weight for parameter in gathered] == [True]
    torch.testing.assert_close(found, expected)
