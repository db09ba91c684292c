"""Tasks are encoded once a run, and the text encoders may be absent afterwards."""

import dataclasses
import functools
import sys
from pathlib import Path

import pytest
import torch

import toy
from editr1.config import Component
from editr1.editors import kontext
from editr1.errors import ConfigError
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import EncodingCache, read_contexts, without_encoders
from editr1.stages import edit_rl
from editr1.store import Run

sys.path.insert(0, str(Path(__file__).parents[1] / "editors"))
import tiny_pipelines


@pytest.fixture
def run(tmp_path):
    run = Run.open(tmp_path / "run")
    toy.write_tasks(run, num=3)
    return run


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """A Kontext pipeline on disk, as people have it."""
    folder = tmp_path_factory.mktemp("kontext")
    tiny_pipelines.kontext().save_pretrained(folder)
    return folder


def config(checkpoint, **changes):
    options = {"path": str(checkpoint), "dtype": "float32", "device": "cpu", "text_tokens": 16}
    settings = {
        "height": 32, "width": 32, "group_size": 2, "contexts": 2, "iterations": 2, "save_every": 0, "gallery_every": 0,
        "sampling": Sampling(steps=3, window=1, last=2), "training": Training(rank=2, alpha=2, beta=0.0),
    }  # fmt: skip
    return Config(Component("kontext", options), Component("toy:RednessJudge"), **settings | changes)


def test_kept_encodings_are_those_of_the_editor_and_are_made_once(run, checkpoint, tmp_path, monkeypatch):
    settings = config(checkpoint)
    contexts, _ = read_contexts(run, 0.0)
    editor = kontext.build(**settings.editor.options)
    plan = editor.plan(32, 32)
    fresh = editor.encode([c.source() for c in contexts], [c.task.instruction for c in contexts], plan)
    cache = EncodingCache(tmp_path / "encodings", settings)
    first = cache.read(editor, contexts)
    editor.release_encoders()  # from here on nothing can be encoded
    again = cache.read(editor, contexts)
    assert first.keys() == again.keys() == fresh.keys()
    for name, value in fresh.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(again[name], value, atol=5e-4, rtol=1e-3)  # one by one and as a batch: rounding differs
        else:
            assert again[name] == value


def test_the_key_is_the_content(run, checkpoint, tmp_path):
    settings = config(checkpoint)
    context, other, *_ = read_contexts(run, 0.0)[0]
    path = EncodingCache(tmp_path, settings).path(context)
    assert path == EncodingCache(tmp_path, settings).path(dataclasses.replace(context, principles=()))
    assert path != EncodingCache(tmp_path, settings).path(other)
    for changed in ({"height": 64}, {"editor": Component("kontext", {**settings.editor.options, "text_tokens": 8})}):
        assert path != EncodingCache(tmp_path, dataclasses.replace(settings, **changed)).path(context)


def test_a_resumed_run_loads_no_text_encoder_and_trains_as_one_that_encodes_anew(run, checkpoint, tmp_path, monkeypatch):
    plain = Run.open(tmp_path / "plain")
    toy.write_tasks(plain, num=3)
    edit_rl.run(config(checkpoint), plain.dir)

    loaded = []
    build = kontext.build
    monkeypatch.setattr(kontext, "build", functools.wraps(build)(lambda **options: loaded.append(build(**options)) or loaded[-1]))
    edit_rl.run(config(checkpoint, cache_encodings=True, iterations=1), run.dir)
    edit_rl.run(config(checkpoint, cache_encodings=True), run.dir)
    assert [editor.pipe.text_encoder for editor in loaded] == [None, None]  # freed by the first run, never there in the second
    assert loaded[1].pipe.text_encoder_2 is None

    ends = [sorted((r.dir / "09_editor" / "checkpoints").glob("*/trained.safetensors"))[-1].read_bytes() for r in (plain, run)]
    assert ends[0] == ends[1]


def test_an_editor_without_encoders_says_so(run, checkpoint):
    editor = kontext.build(**config(checkpoint).editor.options, encoders=False)
    with pytest.raises(ConfigError, match="cache_encodings"):
        editor.encode([], [], editor.plan(32, 32))
    with pytest.raises(ConfigError, match="toy:build"):
        without_encoders(Component("toy:build"))
