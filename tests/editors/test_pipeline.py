"""Diffusers pipelines as they come, the real classes at tiny size, edit a photograph end to end."""

from __future__ import annotations

from pathlib import Path

import diffusers
import numpy as np
import pytest
import tiny_pipelines
import transformers
from PIL import Image

from editr1.config import Component, create
from editr1.editors.base import EditRequest
from editr1.errors import BackendError, ConfigError
from editr1.schema import EditTask, Principle, TaskPrinciples
from editr1.stages import generate
from editr1.store import Run, Work
from tiny_qwen import build_tiny_qwen

AREA = tiny_pipelines.SIDE**2


@pytest.fixture
def photo() -> Image.Image:
    y, x = np.mgrid[0:90, 0:120]
    return Image.fromarray(np.stack([x * 2, y * 2, (x + y) % 256], -1).astype(np.uint8))


def tiny_qwen_plus(folder: Path) -> diffusers.QwenImageEditPlusPipeline:
    build_tiny_qwen(folder, hidden=16)  # the width of the tiny transformer's text input
    bare = tiny_pipelines.qwen(diffusers.QwenImageEditPlusPipeline)
    processor = transformers.AutoProcessor.from_pretrained(folder)
    encoder = transformers.Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    return diffusers.QwenImageEditPlusPipeline(bare.scheduler, bare.vae, encoder, processor.tokenizer, processor, bare.transformer)


@pytest.fixture(params=["kontext", "qwen_plus"])
def path(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "kontext":
        pipe = tiny_pipelines.kontext()
    else:
        pipe = tiny_qwen_plus(tmp_path / "qwen")
        module = diffusers.pipelines.qwenimage.pipeline_qwenimage_edit_plus
        monkeypatch.setattr(module, "VAE_IMAGE_SIZE", AREA)
        monkeypatch.setattr(module, "CONDITION_IMAGE_SIZE", AREA)
    pipe.save_pretrained(tmp_path / "pipe")
    return str(tmp_path / "pipe")


def test_a_pipeline_edits_and_the_seed_alone_decides(path: str, photo: Image.Image) -> None:
    options = {"path": path, "dtype": "float32", "device": "cpu", "area": AREA, "call": {"num_inference_steps": 2}}
    editor = create("editors", Component("pipeline", options))
    requests = [EditRequest(photo, "make it red", seed) for seed in (1, 2)]
    first, other = editor.edit(requests)
    assert first.size == (80, 48)  # 4096 square pixels in the shape 4 : 3, snapped to 16
    assert first.tobytes() != other.tobytes()
    assert editor.edit(requests[::-1])[1].tobytes() == first.tobytes()


def test_a_real_photograph_goes_through_generate(path: str, public_data: Path, tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    source = run.images.put((public_data / "editscore_example" / "input.png").read_bytes())
    task = EditTask.make(source, "Adjust the background to a glass wall.")
    principles = TaskPrinciples(task, (Principle("Is the background a glass wall?", "follow"),))
    run.process("02_principles", [(task.id, principles)], Work(lambda: list), settings={})
    options = {"path": path, "dtype": "float32", "device": "cpu", "area": AREA, "call": {"num_inference_steps": 2}}
    counts = generate.run(generate.Config((generate.EditorSpec("tiny", Component("pipeline", options), num_seeds=2),)), run.dir)
    assert counts.num_out == 2
    edits = [run.images.get(candidate.image) for candidate in run.read("03_candidates")]
    ratio = source.width / source.height
    assert all(0.8 < edit.width / edit.height / ratio < 1.25 for edit in edits)  # its shape, snapped to what the model can do
    assert edits[0].tobytes() != edits[1].tobytes()


def test_arguments_that_do_not_fit_are_named(path: str) -> None:
    for call, message in [({"guidance": 1}, "takes no argument 'guidance'"), ({"prompt": "x"}, "must not hold 'prompt'")]:
        with pytest.raises(ConfigError, match=message):
            create("editors", Component("pipeline", {"path": path, "dtype": "float32", "device": "cpu", "call": call}))


def test_a_path_that_is_no_pipeline_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load DiffusionPipeline"):
        create("editors", Component("pipeline", {"path": str(tmp_path), "dtype": "float32", "device": "cpu"}))


def test_pixels_that_are_no_numbers_are_no_edit(photo: Image.Image) -> None:
    from editr1.editors.pipeline import PipelineEditor

    pipe = tiny_pipelines.kontext()
    pipe.set_progress_bar_config(disable=True)
    parameter = next(iter(pipe.transformer.parameters()))
    parameter.data.fill_(float("nan"))
    editor = PipelineEditor(pipe, "tiny", AREA, {"num_inference_steps": 1})
    with pytest.raises(BackendError, match="NaN"):
        editor.edit([EditRequest(photo, "x", 1)])
