"""A task of two source pictures, from the user's list to the editor's velocity and the judge's request."""

import json
import sys
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "editors"))
import test_adapters as adapters

import fake_endpoint
from editr1.config import Component
from editr1.flow.config import Config, Sampling, Training
from editr1.flow.contexts import read_contexts
from editr1.schema import EditTask, ImageRef, Principle, TaskPrinciples
from editr1.stages import edit_rl, tasks
from editr1.store import Run, Work

small_sources = adapters.small_sources  # the fixture works in the module that names it


def build(encoders=True):
    """FLUX.2-dev's own classes at tiny size."""
    return adapters.make("flux2", False)[0]


def listed(tmp_path):
    """A run with the tasks of a list: one picture, two pictures, the same two in the other order."""
    for name, colour in (("a", "red"), ("b", "blue")):
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"{name}.png")
    rows = [{"image": names, "instruction": "put it there"} for names in ("a.png", ["a.png", "b.png"], ["b.png", "a.png"])]
    (tmp_path / "tasks.jsonl").write_text("\n".join(map(json.dumps, rows)))
    tasks.run(tasks.Config(Component("table", {"path": str(tmp_path / "tasks.jsonl")})), tmp_path / "run")
    run = Run.open(tmp_path / "run")
    rows = [(task.id, TaskPrinciples(task, (Principle("Is it there?", "follow"),))) for task in run.read("01_tasks", EditTask)]
    run.process("02_principles", rows, Work(lambda: list), settings={})
    return run


def test_two_sources_reach_the_velocity_and_the_judge(tmp_path):
    run = listed(tmp_path)
    one, two, swapped = (context for context in read_contexts(run, 0.0)[0])
    assert [len(context.task.sources) for context in (one, two, swapped)] == [1, 2, 2]

    editor = build()
    plan = editor.plan(64, 64)
    x = editor.noise(plan, [3])
    v = [editor.velocity(x, 0.5, editor.encode([c.source()], [c.task.instruction], plan)) for c in (one, two, swapped)]
    assert float((v[0] - v[1]).abs().max()) > 1e-4
    assert float((v[1] - v[2]).abs().max()) > 1e-4

    scores = iter(range(10_000))
    with fake_endpoint.serve(lambda body: fake_endpoint.completion(f"<score>{next(scores) % 10}</score>")) as judge:
        vlm = {"id": "openai_api", "options": {"model": "m", "base_url": judge.url, "api_key": "k", "max_concurrency": 1}}
        reward = Component("editr1.judge.rrm:build", {"vlm": vlm, "prompt_id": "direct"})
        config = Config(
            Component(f"{__name__}:build"), reward, height=64, width=64, group_size=2, contexts=3, contexts_per_batch=3,
            iterations=1, save_every=0, gallery_every=0, cache_encodings=True, sampling=Sampling(steps=3, window=1, last=2),
            training=Training(rank=2, alpha=2, beta=0.0),
        )  # fmt: skip
        edit_rl.run(config, run.dir)
    asked = [body["messages"][-1]["content"] for body in judge.bodies]
    shown = [parts for parts in asked if isinstance(parts, list)]  # but for the word that a run asks for before it begins
    assert sorted(sum(part["type"] == "image_url" for part in parts) for parts in shown) == [2, 2, 3, 3, 3, 3]
    text = "".join(part.get("text", "[picture]") for part in next(parts for parts in shown if len(parts) > 5))
    assert "Source picture 1 of 2:\n[picture]Source picture 2 of 2:\n[picture]" in text
    assert (run.dir / "09_editor" / "lora" / "pytorch_lora_weights.safetensors").exists()


def test_the_id_covers_every_source_and_their_order():
    a, b = ImageRef("a" * 64), ImageRef("b" * 64)
    ids = {EditTask.make(a, "x", further=further).id for further in ((), (b,), (b, a), (a, b))} | {EditTask.make(b, "x", further=(a,)).id}
    assert len(ids) == 5
    assert EditTask.make(a, "x").id == EditTask.make(a, "x", "kind", "hard", ()).id
