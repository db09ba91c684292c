"""What a GCPO step costs beside its bare arithmetic, on the embedded verifier's architecture.

    python benchmarks/gcpo_step.py [--pairs 16] [--traces 6] [--threads 2]

Compares, in one process and on the same prompts, (1) the stage's step on TRL's stock path with bare `generate` plus bare
forward and backward of the same traces, (2) the step with `share_prompts`, (3) K traces of one image with K single traces.
Times are seconds of wall clock and of processor; on a busy machine only the latter mean anything. Weights are random and the
end token is forbidden, so that every trace has `--tokens` tokens. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from editr1.schema import Candidate, EditTask, PreferencePair, Principle
from editr1.stages import gcpo
from editr1.store import Run
from editr1.store.engine import Engine, Work
from editr1.training.options import Machine, Schedule
from editr1.vlm.base import forbidden_tokens
from editr1.world.tiny_vlm import new_model, new_processor

QUESTION = "Is the top-left a red solid circle?"
CATEGORIES = ("follow", "follow", "keep", "keep", "keep", "quality", "quality")
SIZE = 72  # pixels
MAX_OVERHEAD = 0.15
MAX_SHARE = 0.7  # the pictures and the prompt are read once for all traces of an image


@dataclass(frozen=True)
class Cost:
    """Seconds of one repetition."""

    wall: float
    cpu: float


def measure(work: Callable[[], object], repeats: int) -> Cost:
    """The median cost of `work` after one warm-up."""
    work()
    costs = []
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        costs.append(Cost(time.perf_counter() - wall, time.process_time() - cpu))
    return Cost(statistics.median(c.wall for c in costs), statistics.median(c.cpu for c in costs))


def build_run(folder: Path, num_pairs: int) -> Run:
    """A run that holds nothing but pairs of random pictures with seven principles each."""
    run = Run.open(folder, {})
    rng = random.Random(0)

    def picture() -> Any:
        return run.images.put(Image.frombytes("RGB", (SIZE, SIZE), rng.randbytes(3 * SIZE * SIZE)))

    principles = tuple(Principle(QUESTION, category) for category in CATEGORIES)  # type: ignore[arg-type]
    pairs = []
    for number in range(num_pairs):
        task = EditTask.make(picture(), "change the background to red")
        a, b = (Candidate.make(task.id, picture(), "noise", seed) for seed in (0, 1))
        pairs.append((str(number), PreferencePair(task, principles, a, b, "a")))
    run.process("07_pairs", pairs, Work(lambda: list), settings={"held_out_share": 0.0}, engine=Engine(progress=False))
    return run


def build_checkpoint(folder: Path) -> Path:
    """The embedded verifier's architecture with random weights that never end a trace."""
    torch.manual_seed(0)
    model, processor = new_model(), new_processor()
    with torch.no_grad():  # the end token's row points nowhere: its logit stays at 0 while others compete far above
        model.lm_head.weight.mul_(4)
        model.lm_head.weight[processor.tokenizer.eos_token_id] = 0
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def stage_step(run: Run, checkpoint: Path, args: argparse.Namespace, shared: bool) -> Cost:
    """The median step of the stage itself, generation, reward, update and logging included."""
    from transformers import TrainerCallback

    class Clock(TrainerCallback):
        def __init__(self) -> None:
            self.marks: list[tuple[float, float]] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.marks.append((time.perf_counter(), time.process_time()))

    traces = args.pairs * 2 * args.traces
    config = gcpo.Config(
        model=str(checkpoint),
        prompt_id="compact",
        output=f"08_{'shared' if shared else 'stock'}",
        steps=args.repeats + 1,
        pairs_per_step=args.pairs,
        num_traces=args.traces,
        share_prompts=shared,
        generation=gcpo.Generation(max_tokens=args.tokens),
        schedule=Schedule(lr=3e-4),
        machine=Machine(micro_batch=traces // 2, activation_checkpointing=False, trackers=(), progress=False, save_every=10**6),
    )
    trainer, _ = gcpo._trainer(config, run, gcpo.pair_rows(run, gcpo.read_pairs(run), "compact", config.steps * args.pairs, 0))
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    steps = [Cost(b[0] - a[0], b[1] - a[1]) for a, b in zip(clock.marks, clock.marks[1:], strict=False)]
    return Cost(statistics.median(s.wall for s in steps), statistics.median(s.cpu for s in steps))


def bare(run: Run, checkpoint: Path, args: argparse.Namespace) -> tuple[Cost, Cost]:
    """(generate, forward and backward) of one step's traces with nothing around them."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model, processor = AutoModelForImageTextToText.from_pretrained(checkpoint), AutoProcessor.from_pretrained(checkpoint)
    inputs = encode(run, processor, args.pairs, args.traces)
    settings: dict[str, Any] = {"max_new_tokens": args.tokens, "min_new_tokens": args.tokens, "do_sample": True, "top_k": 0}
    settings["suppress_tokens"] = forbidden_tokens(model, processor)

    def generate() -> torch.Tensor:
        with torch.no_grad():
            return model.generate(**inputs, **settings)

    sequences = generate()
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(sequences[:, inputs["input_ids"].shape[1] :])], 1)
    types = torch.nn.functional.pad(inputs["mm_token_type_ids"], (0, sequences.shape[1] - inputs["input_ids"].shape[1]))
    half = len(sequences) // 2
    pixels, grids = inputs["pixel_values"].chunk(2), inputs["image_grid_thw"].chunk(2)

    def update() -> None:
        for part in (0, 1):
            rows = slice(part * half, (part + 1) * half)
            batch = {"input_ids": sequences[rows], "attention_mask": mask[rows], "mm_token_type_ids": types[rows]}
            model(**batch, pixel_values=pixels[part], image_grid_thw=grids[part], labels=sequences[rows]).loss.backward()

    return measure(generate, args.repeats), measure(update, args.repeats)


def encode(run: Run, processor: Any, num_pairs: int, num_traces: int) -> dict[str, torch.Tensor]:
    """Model inputs of one step, every prompt repeated for each of its traces."""
    rows = gcpo.pair_rows(run, gcpo.read_pairs(run), "compact", num_pairs, 0)
    repeated = [rows[i] for i in range(2 * num_pairs) for _ in range(num_traces)]
    texts = processor.apply_chat_template([row["prompt"] for row in repeated], add_generation_prompt=True, tokenize=False)
    images = [row["images"] for row in repeated]
    return dict(processor(text=texts, images=images, return_tensors="pt", padding=True, padding_side="left"))


def one_image(run: Run, checkpoint: Path, args: argparse.Namespace, num_traces: int) -> tuple[Cost, Cost]:
    """(K traces of one image together, one trace alone) through the local vision-language adapter."""
    from editr1.judge.prompts import render_score
    from editr1.vlm.base import Sampling
    from editr1.vlm.local import build

    vlm = build(str(checkpoint), batch_size=num_traces)
    pair = gcpo.read_pairs(run)[0]
    source, edited = run.images.get(pair.task.source), run.images.get(pair.a.image)
    sampling = Sampling(1.0, 1.0, args.tokens)
    about = (source, edited, pair.task.instruction, pair.principles)
    ask = [render_score("compact", *about, sampling=sampling, seed=seed) for seed in range(num_traces)]
    return measure(lambda: vlm.chat(ask), args.repeats), measure(lambda: vlm.chat(ask[:1]), args.repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("pairs", 16), ("traces", 6), ("tokens", 100), ("threads", 2), ("repeats", 3), ("one_image_traces", 8)):
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)  # random weights parse nowhere, and every pair would say so
    with tempfile.TemporaryDirectory() as folder:
        run, checkpoint = build_run(Path(folder) / "run", args.pairs), build_checkpoint(Path(folder) / "verifier")
        generate, update = bare(run, checkpoint, args)
        stock, shared = stage_step(run, checkpoint, args, shared=False), stage_step(run, checkpoint, args, shared=True)
        together, alone = one_image(run, checkpoint, args, args.one_image_traces)
    floor = Cost(generate.wall + update.wall, generate.cpu + update.cpu)
    lines = {"bare generate": generate, "bare update": update, "bare sum": floor, "stock step": stock, "step sharing prompts": shared}
    print(f"{args.pairs} pairs x 2 x {args.traces} traces of {args.tokens} tokens, {args.threads} threads")
    for name, cost in {**lines, f"{args.one_image_traces} traces of an image": together, "one trace": alone}.items():
        print(f"{name:<24} {cost.wall:7.2f} s wall {cost.cpu:7.2f} s cpu")
    overhead = {"stock": stock.cpu / floor.cpu - 1, "sharing prompts": shared.cpu / floor.cpu - 1}
    share = together.cpu / (args.one_image_traces * alone.cpu)
    result = {
        "measure": "overhead of the step that shares prompts over bare generate + update of the same traces, a share of processor time",
        "value": round(overhead["sharing prompts"], 3),
        "n": args.repeats,
        "goal": f"at most {MAX_OVERHEAD:g}, and {args.one_image_traces} traces of one image at most {MAX_SHARE:g} of as many single traces",
        "holds": overhead["sharing prompts"] <= MAX_OVERHEAD and share <= MAX_SHARE,
        "overhead_stock": round(overhead["stock"], 3),
        "k_traces_over_k_single": round(share, 3),
        "k": args.one_image_traces,
        **{key: getattr(args, key) for key in ("pairs", "traces", "tokens", "threads")},
        "seconds_cpu": {name: round(cost.cpu, 3) for name, cost in lines.items()},
        "seconds_wall": {name: round(cost.wall, 3) for name, cost in lines.items()},
        "torch": torch.__version__,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
