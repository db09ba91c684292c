"""A run directory of the embedded world with everything that a report can show, made by the real data stages in seconds."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import random
import shutil
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

from editr1.config import load_recipe, section
from editr1.schema import Judgement, Metric, Trace, to_json
from editr1.store import Run

RECIPE = Path(__file__).parent / "stages" / "data_loop.yaml"


def make_run(folder: Path, num_tasks: int = 8, training: bool = True) -> Run:
    """Tasks to pairs by the data stages; curves, metrics, strips and a judge's traces written as the other stages write them."""
    shutil.copytree(Path(_made(num_tasks, training).name) / "run", folder)
    return Run.open(folder, create=False)


@functools.cache
def _made(num_tasks: int, training: bool) -> TemporaryDirectory[str]:
    """Made once a process: many tests start from the same run."""
    made = TemporaryDirectory()
    folder = Path(made.name) / "run"
    recipe = load_recipe(RECIPE, [f"tasks.source.options.num={num_tasks}"])
    for name in ("tasks", "decompose", "generate", "score", "inspect", "pairs"):
        stage = import_module(f"editr1.stages.{name}")
        stage.run(section(recipe, name, stage.Config), folder)
    run = Run.open(folder, create=False)
    if training:
        _curves(run)
        _metrics(run)
        _strips(run)
        _judge(run)
    return made


def _curves(run: Run) -> None:
    draw = random.Random(0)
    for step in range(120):
        run.log(
            "sft",
            step,
            {
                "loss": 2.2 * math.exp(-step / 30) + 0.3 + draw.gauss(0, 0.05),
                "mean_token_accuracy": 0.97 - 0.4 * math.exp(-step / 25),
                "epoch": step / 60,
            },
        )
        run.log(
            "gcpo",
            step,
            {
                "reward": 0.6 + 0.1 * step / 120 + draw.gauss(0, 0.02),
                "completions/mean_length": 80 + draw.gauss(0, 2),
                "lr": 3e-4,
                "parse_rate": 0.97,
            },
        )
    for step in range(60):
        run.log(
            "edit_rl",
            step,
            {
                "reward/mean": 5.1 + step / 100 + draw.gauss(0, 0.2),
                "train/kl": step * 1e-5,
                "train/abs_advantage": 0.6 + draw.gauss(0, 0.03),
            }
            | {"reward/follow": 0.5 + step / 200, "reward/keep": 0.9 - step / 600, "reward/quality": 0.7}
            | ({"evaluation/reward": 5 + step / 90} if step % 10 == 9 else {}),
        )


def _metrics(run: Run) -> None:
    kinds = {"add": 0.7, "color": 0.81, "remove": 0.66, "background": 0.9}
    for judge, value in (("scorer", 0.612), ("sft", 0.731), ("gcpo", 0.783)):
        shifted = {kind: share * value / 0.75 for kind, share in kinds.items()}
        metric = Metric(f"pair_accuracy/{judge}", value, value - 0.03, value + 0.03, 600, 2, 0.01, shifted, "pairs/avg4/half")
        run.add_metric(metric.promised(0.7, "above 0.7") if judge == "sft" else metric)
    gain = Metric("pair_accuracy_gain", 0.052, 0.021, 0.083, 600, protocol="pairs/avg4/half/paired", p_value=0.0004)
    run.add_metric(gain.promised(0.02, "above 0.02"))
    run.add_metric(Metric("oracle_score/before", 6.31, 6.02, 6.6, 256, protocol="editor/ode/oracle"))
    run.add_metric(Metric("oracle_score/after", 6.72, 6.4, 7.01, 256, protocol="editor/ode/oracle"))
    gain = Metric("oracle_score_gain", 0.41, -0.02, 0.84, 256, protocol="editor/ode/oracle/paired", p_value=0.06)
    run.add_metric(gain.promised(0.0, "rises"))
    run.add_metric(Metric("calibration/empty", None, n=0, num_unscored=12, protocol="calibration"))
    for stage, seconds in (("tasks", 1.2), ("score", 14.0), ("sft", 140.5), ("gcpo", 220.1), ("edit_rl", 181.0)):
        run.add_metric(Metric(f"stage_seconds/{stage}", seconds, n=1, protocol="seconds/wall"))


def _strips(run: Run) -> None:
    tasks = {task.id: task for task in run.read("01_tasks")}
    by_task: dict[str, list] = {}
    for candidate in run.read("03_candidates"):
        by_task.setdefault(candidate.task_id, []).append(candidate)
    rows = []
    for number, (task_id, candidates) in enumerate(by_task.items()):
        refs = {"source": tasks[task_id].source, "before": candidates[-1].image, "after": candidates[0].image}
        row = {name: dataclasses.asdict(ref) for name, ref in refs.items()}
        row |= {"task_id": task_id, "instruction": tasks[task_id].instruction, "kind": tasks[task_id].kind}
        rows.append(json.dumps(row | {"score_before": 5.0, "score_after": None if number == 1 else 5.0 + number - 2}))
    folder = run.dir / "09_editor"
    folder.mkdir()
    (folder / "gallery.jsonl").write_text("\n".join(rows) + "\n")
    (folder / "gallery").mkdir()
    principles = {row.task.id: row.principles for row in run.read("02_principles")}
    for iteration in (10, 60):  # as flow.curation writes them: what each judged principle came to, pictures by digest
        lines = []
        for number, (task_id, candidates) in enumerate(by_task.items()):
            questions = [p.question for p in principles[task_id]]
            row = {"task_id": task_id, "instruction": tasks[task_id].instruction, "source": tasks[task_id].source.digest}
            row |= {
                "edited": candidates[-1 if iteration == 10 else 0].image.digest,
                "score": 5.0 + number * iteration / 120,
                "unscored": None,
            }
            lines.append(json.dumps(row | {"principles": questions, "rates": [0.4 + iteration / 120] * len(questions)}))
        (folder / "gallery" / f"evaluation_{iteration:06d}_0.jsonl").write_text("\n".join(lines) + "\n")


def _judge(run: Run) -> None:
    folder = run.dir / "10_traces"
    folder.mkdir()
    lines, seen = [], set()
    for trace in run.read("04_traces"):
        if trace.quadruple_id not in seen and isinstance(trace.outcome, Judgement):
            seen.add(trace.quadruple_id)
            flipped = (not trace.outcome.verdicts[0], *trace.outcome.verdicts[1:])
            lines.append(
                to_json(
                    Trace(
                        trace.quadruple_id,
                        "RL-RRM says </script><img src=x onerror=alert(1)>",
                        Judgement(flipped, 4.5),
                        "rl",
                        "compact",
                        1.0,
                        0,
                    )
                )
            )
    (folder / "gcpo.jsonl").write_text("\n".join(lines) + "\n")
