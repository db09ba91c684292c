"""GCPO by real engines, for `engines.py`: a colocated vLLM beside transformers, and ms-swift's own trainer."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
import yaml
from _check_table import Row
from _engines_run import JUDGE
from _engines_server import environment

from editr1.integrations import ms_swift
from editr1.objectives.gcpo import advantages, loss_ratio, win_ratio
from editr1.store import Run
from editr1.training.pair_reward import read_trace

ROOT = Path(__file__).parents[1]
STEPS = 2
_WIN_RATIO_APART = 0.25  # ours: 64 traces a step and engine, so a win ratio is known to about .08


def colocate(run: Run, folder: Path) -> str:
    """Two steps each on the same pairs; the colocated engine takes over the trainer's weights between them."""
    recipe = folder / "gcpo.yaml"
    settings = {
        "prompt_id": "compact",
        "steps": STEPS,
        "pairs_per_step": 8,
        "num_traces": 4,
        "trained": {"last_blocks": 1},
        "schedule": {"lr": 1e-3, "warmup_steps": 0},
        "generation": {"temperature": 1.0, "max_tokens": 160, "vllm_memory": 0.05},
        "machine": {"micro_batch": 16, "activation_checkpointing": False, "progress": False},
    }
    recipe.write_text(yaml.safe_dump({"gcpo": settings}))
    copy = folder / "gcpo"  # what an earlier call trained there is finished, and would be told again
    shutil.copytree(run.dir, copy, ignore=shutil.ignore_patterns(folder.name, "gcpo_*", "metrics.jsonl"))
    ours = _gcpo(copy, recipe, folder, "transformers")
    theirs = _gcpo(copy, recipe, folder, "vllm_colocate")
    ratios = [step["engine_ratio"] for step in theirs]
    norms = [sum(step["grad_norm"] for step in steps) / STEPS for steps in (ours, theirs)]
    wins = [sum(step["win_ratio"] for step in steps) / STEPS for steps in (ours, theirs)]
    told = (
        f"importance ratio {_listed(ratios)}; gradient norm {norms[1]:.4f} ({_listed(s['grad_norm'] for s in theirs)}), transformers "
        f"{norms[0]:.4f}; win ratio {wins[1]:.3f}, transformers {wins[0]:.3f}; parsed {_listed(s['parse_rate'] for s in theirs)}, "
        f"transformers {_listed(s['parse_rate'] for s in ours)}; weights synchronised by TRL, vLLM's repacking for oneDNN off"
    )
    assert all(0.9 <= ratio <= 1.1 for ratio in ratios), told
    assert norms[0] > 0, told
    assert 0.5 <= norms[1] / norms[0] <= 2, told
    assert abs(wins[0] - wins[1]) <= _WIN_RATIO_APART, told
    return told


def _gcpo(run: Path, recipe: Path, folder: Path, engine: str) -> list[dict[str, float]]:
    output = f"gcpo_{engine}"
    entry = str(Path(__file__).with_name("_engines_gcpo.py"))
    options = ["--set", f"gcpo.generation.engine={engine}", "--set", f"gcpo.output={output}"]
    command = [sys.executable, entry, "gcpo", "--config", str(recipe), "--run", str(run), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=1200)
    (folder / f"{output}.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-1500:]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().split("\n")[:-1]]
    steps = [row for row in rows if row["stage"] == f"gcpo/{output}"]
    assert len(steps) == STEPS, f"{len(steps)} steps logged"
    return steps


def _listed(values: Iterable[float]) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


# --- ms-swift -----------------------------------------------------------------------------------------

NAME = "`swift rlhf --rlhf_type grpo`, 2 steps with `editr1_gcpo`"
TRACES, PAIRS = 4, 2
_SWIFT = {
    "rlhf_type": "grpo",
    "model_type": "qwen2_5_vl",
    "template": "qwen2_5_vl",
    "system": "",
    "reward_funcs": ms_swift.NAME,
    "dataset_shuffle": "false",
    "train_dataloader_shuffle": "false",
    "num_generations": TRACES,
    "per_device_train_batch_size": 2 * TRACES,
    "gradient_accumulation_steps": PAIRS,
    "scale_rewards": "none",
    "beta": 0,
    "loss_type": "grpo",
    "remove_unused_columns": "false",
    "max_steps": STEPS,
    "max_completion_length": 160,
    "temperature": 1.0,
    "learning_rate": 1e-4,
    "tuner_type": "full",
    "torch_dtype": "float32",
    "add_version": "false",
    "log_completions": "true",
    "use_hf": "true",
    "report_to": "none",
    "logging_steps": 1,
    "save_strategy": "no",
}


def swift_steps(run: Run, folder: Path, python: Path | None) -> Row:
    """ms-swift's own trainer in its own environment; what it logs as rewards and advantages is reckoned again here."""
    if python is None:
        return Row("ms_swift", NAME, "no --swift given", None)
    asked = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('ms_swift'))"], capture_output=True, text=True)
    package = f"ms_swift {asked.stdout.strip()}"
    try:
        return Row(package, NAME, _swift(run, folder, python), True)
    except Exception as error:  # noqa: BLE001 - whatever another package raises is the result of its check
        return Row(package, NAME, f"{type(error).__name__}: {' '.join(str(error).split())[-400:]}", False)


def _swift(run: Run, folder: Path, python: Path) -> str:
    pairs, output = folder / "pairs.jsonl", folder / "swift"
    ms_swift.export_pairs(run.dir, pairs, "compact")
    places = {"model": run.dir / JUDGE, "external_plugins": ms_swift.__file__, "dataset": pairs, "output_dir": output}
    options = [part for name, value in {**_SWIFT, **places}.items() for part in (f"--{name}", str(value))]
    command = [str(python), str(Path(__file__).with_name("_engines_swift.py")), *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=1200)
    (folder / "swift.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr[-1500:]
    rows = [json.loads(line) for line in pairs.read_text("utf-8").split("\n")[:-1]]
    batches = [json.loads(line) for line in (output / "completions.jsonl").read_text("utf-8").split("\n")[:-1]]
    logged = list({batch["step"][0]: batch for batch in batches}.values())  # the last step is written twice
    steps = [json.loads(line) for line in (output / "logging.jsonl").read_text("utf-8").split("\n")[:-1]]
    norms = [step["grad_norm"] for step in steps if "grad_norm" in step]
    assert len(logged) == len(norms) == STEPS, (len(logged), norms)
    for number, batch in enumerate(logged):
        mine = rows[number * 2 * PAIRS : (number + 1) * 2 * PAIRS]
        ratio_GN = _ratios(batch["completion"], mine)
        assert torch.allclose(torch.tensor(batch["Gcpo"]), ratio_GN.flatten(), atol=1e-6), (batch["Gcpo"], ratio_GN)
        assert torch.allclose(torch.tensor(batch["advantages"]), advantages(ratio_GN).flatten(), atol=1e-6), batch["advantages"]
    assert all(norm > 0 for norm in norms), norms
    number = sum(len(batch["Gcpo"]) for batch in logged)
    return f"{number} rewards and advantages equal to the formula on the logged traces; gradient norm {_listed(norms)}"


def _ratios(texts: Sequence[str], rows: Sequence[dict[str, object]]) -> torch.Tensor:
    """Win and loss ratios of the traces of a batch: groups of one image side by side, the winner's before the loser's."""
    taus = [read_trace(text, rows[place // TRACES], 0, None).score for place, text in enumerate(texts)]
    tau_PSN = torch.tensor(taus).reshape(-1, 2, TRACES)
    won, lost = tau_PSN[:, 0], tau_PSN[:, 1]
    return torch.stack([win_ratio(won, lost), loss_ratio(lost, won)], dim=1).reshape(-1, TRACES)
