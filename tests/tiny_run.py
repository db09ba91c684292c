"""A run directory of a few hand-made rows with random pictures, and a tiny checkpoint: enough to train on in seconds."""

from __future__ import annotations

import random
from pathlib import Path

from PIL import Image

from editr1.judge.prompts import labels
from editr1.schema import Candidate, EditTask, Inspection, Judgement, PreferencePair, Principle, TaskPrinciples, Trace
from editr1.store import Run
from editr1.store.engine import Work

SIZE = 72  # pixels
PRINCIPLES = (
    Principle("Is the top-left a red solid circle?", "follow"),
    Principle("Is the background white?", "keep"),
    Principle("Is the image clean?", "quality"),
)
TEXT = """F1 red solid circle, want red solid circle -> yes
K1 white, want white -> yes
Q1 clean, want clean -> yes
<score>{score:.1f}</score>"""


def build_tiny_run(folder: Path, num_tasks: int = 3, candidates_per_task: int = 2) -> Path:
    """All tables up to 07_pairs; the first candidate of a task is always the preferred one."""
    run = Run.open(folder, {})
    rng = random.Random(0)
    tasks, principles, candidates, traces, inspections, pairs = [], [], [], [], [], []
    for number in range(num_tasks):
        task = EditTask.make(run.images.put(_noise(rng)), f"change the background to {'red' if number % 2 else 'white'}")
        tasks.append((task.id, task))
        principles.append((task.id, TaskPrinciples(task, PRINCIPLES)))
        own = [Candidate.make(task.id, run.images.put(_noise(rng)), "noise", seed) for seed in range(candidates_per_task)]
        for place, candidate in enumerate(own):
            candidates.append((candidate.id, candidate))
            for seed in range(2):
                score = 9.0 - 3 * place + 0.5 * seed
                judged = Judgement((True, True, True), score)
                trace = Trace(candidate.id, TEXT.format(score=score), judged, "annotator", "compact", 0.7, seed)
                traces.append((f"{candidate.id}/{seed}", trace))
            inspections.append((candidate.id, Inspection(candidate.id, (True,) * 3, ("",) * 3, 1, 1.0)))
        pairs.append((task.id, PreferencePair(task, PRINCIPLES, own[0], own[1], "a", "person")))
    tables = {
        "01_tasks": tasks,
        "02_principles": principles,
        "03_candidates": candidates,
        "04_traces": traces,
        "05_inspections": inspections,
        "07_pairs": pairs,
    }
    for table, items in tables.items():
        run.process(table, items, Work(lambda: list), settings={"held_out_share": 0.0})
    assert labels(PRINCIPLES) == ("F1", "K1", "Q1")
    return folder


def build_tiny_verifier(folder: Path, seed: int = 0) -> Path:
    """The embedded verifier's architecture and word-level tokenizer with random weights, smaller still."""
    import torch

    from editr1.world.tiny_vlm import new_model, new_processor

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = new_model(text_width=32, text_layers=2, vision_width=32)
    model.save_pretrained(folder)
    new_processor().save_pretrained(folder)
    return folder


def _noise(rng: random.Random) -> Image.Image:
    return Image.frombytes("RGB", (SIZE, SIZE), rng.randbytes(3 * SIZE * SIZE))
