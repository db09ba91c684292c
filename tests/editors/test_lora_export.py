"""A trained LoRA leaves the project as a file that the plain diffusers pipeline loads, with the same latents."""

import dataclasses

import pytest
import test_adapters as adapters
import tiny_pipelines as tiny
import torch

from editr1.editors import kontext
from editr1.flow.config import Training
from editr1.flow.policy import Policy, export
from editr1.flow.rollout import denoise
from editr1.objectives.schedule import Schedule

small_sources = adapters.small_sources  # the fixture works in the module that names it

LORA = Training(weights="lora", rank=4, alpha=8)


def shaken(editor, training=LORA):
    """A policy whose LoRA does something."""
    policy = Policy(editor, training, seed=0)
    generator = torch.Generator().manual_seed(5)
    for param in policy.params.values():
        param.data.add_(0.2 * torch.randn(param.shape, generator=generator))
    return policy


def load(pipe, folder):
    """As the adapters' documentation says for a pipeline without a loader of its own."""
    if hasattr(pipe, "load_lora_weights"):
        pipe.load_lora_weights(folder)
    else:
        pipe.transformer.load_lora_adapter(folder, prefix="transformer", weight_name="pytorch_lora_weights.safetensors")


def latents(editor, source, text):
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    return denoise(editor, editor.noise(plan, [7]), Schedule(editor.sigmas(plan, 4)), editor.encode([source], [text], plan))


@pytest.mark.parametrize("name", adapters.NAMES)
def test_every_lora_target_exists_and_learns_alone(name):
    editor, _, _ = adapters.make(name, False)
    policy = Policy(editor, LORA, seed=0)
    for target in editor.lora_targets():
        assert any(target in param for param in policy.params), target
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    cond = editor.encode([adapters.picture(1)], ["make it red"], plan)
    editor.velocity(editor.noise(plan, [1]), 0.5, cond).square().sum().backward()
    assert all(p.grad is None for n, p in editor.transformer.named_parameters() if "lora_" not in n)
    assert sum(p.grad is not None for p in policy.params.values()) >= len(policy.params) * 0.8


@pytest.mark.parametrize("name", adapters.NAMES)
def test_the_exported_lora_gives_the_same_latents_in_the_plain_pipeline(name, tmp_path):
    editor, _, call = adapters.make(name, False)
    plan = editor.plan(tiny.SIDE, tiny.SIDE)
    base = latents(editor, adapters.picture(1), "make it red")
    policy = shaken(editor)
    trained = latents(editor, adapters.picture(1), "make it red")
    folder = export(policy, None, tmp_path)
    assert float((trained - base).abs().max()) > 1e-3

    plain = adapters.make(name, False)[1]
    load(plain, folder)
    theirs = plain(
        image=adapters.picture(1), prompt="make it red", num_inference_steps=4, **adapters.sizes(name),
        latents=adapters.pipeline_noise(name, editor, plan, [7]), output_type="latent", **call,
    ).images  # fmt: skip
    torch.testing.assert_close(adapters.unpacked(name, editor, trained, plan), theirs, atol=2e-5, rtol=1e-4)


def test_the_export_takes_the_averaged_weights_and_leaves_the_trained_ones(tmp_path):
    editor = kontext.KontextEditor(tiny.kontext(), text_tokens=16)
    policy = shaken(editor)
    before = policy.snapshot()
    export(policy, {name: torch.zeros_like(value) for name, value in before.items()}, tmp_path)
    assert all(torch.equal(before[name], value) for name, value in policy.snapshot().items())


def test_a_fully_trained_transformer_is_exported_as_a_folder(tmp_path):
    import diffusers

    editor = kontext.KontextEditor(tiny.kontext(), text_tokens=16)
    policy = shaken(editor, dataclasses.replace(LORA, weights="full", beta=0.0))
    folder = export(policy, None, tmp_path)
    again = diffusers.FluxTransformer2DModel.from_pretrained(folder)
    for name, value in policy.snapshot().items():
        assert torch.equal(again.state_dict()[name], value)


def test_gradient_checkpointing_changes_no_gradient():
    grads = []
    for checkpointing in (False, True):
        editor = kontext.KontextEditor(tiny.kontext(), text_tokens=16)
        policy = shaken(editor, dataclasses.replace(LORA, gradient_checkpointing=checkpointing))
        plan = editor.plan(tiny.SIDE, tiny.SIDE)
        cond = editor.encode([adapters.picture(1)], ["make it red"], plan)
        editor.velocity(editor.noise(plan, [1]), 0.5, cond).square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in policy.params.values()]))
    torch.testing.assert_close(grads[0], grads[1], atol=1e-6, rtol=1e-5)
