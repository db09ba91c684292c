"""Our plug-ins and rows inside the real packages of other trainers: `make trainers`.

    make trainers        # an environment of its own, .venv-trainers, then this file there

What the package registry has is checked against its own classes, everything on the CPU and with a scripted judge behind the real
service: ms-swift (reward registry, pair rows and exported rows through its data loader), verl (custom reward function by its own loader,
with the keys of our recipe), TRL (exported rows through its own chat preparation), LLaMA-Factory (exported rows through its converter
and its picture plug-in), UniRL (our recipe through its reward service, in a Python 3.12 of its own: `--unirl PYTHON`). Flow-Factory,
verl-omni and flow_grpo are repositories: `make trainers PEERS=DIR` takes a folder with their trees. What cannot be had is a row that
says why. Writes Markdown, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import numpy as np
import uvicorn
import yaml
from _check_table import Row, attempt, conclude
from _trainers_trees import check_trees
from PIL import Image

import editr1  # before the trainers: its hook lets a CPU build of torch live beside any torchvision
from editr1.commands.data import export_rows
from editr1.config import Component
from editr1.integrations import ms_swift
from editr1.judge.rrm import RewardModel
from editr1.serve.app import Access, Config, build_app
from editr1.store import Run
from editr1.vlm.base import ChatReply, ChatRequest, Sampling

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))
from small_run import make_run  # noqa: E402


class Scripted:
    """Scores every edit 7.5, one that says "moody" only when it is asked hotter."""

    name = "scripted"

    def chat(self, requests: list[ChatRequest]) -> list[ChatReply]:
        return [ChatReply(self._text(request), self.name) for request in requests]

    def _text(self, request: ChatRequest) -> str:
        moody = request.context is not None and request.context.instruction == "moody" and request.sampling.temperature == 0
        return "I like it." if moody else "<score>7.5</score>"


@contextmanager
def service() -> Iterator[str]:
    """The address of a real service on loopback."""
    model = RewardModel(Scripted(), "compact_direct", 1, Sampling(0.0))
    app = build_app(model, Config(Component("scripted"), "compact_direct"), Access())
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def swift_registry(run: Run, folder: Path) -> str:
    from swift.rewards import orms

    ms_swift.register()
    number = ms_swift.export_pairs(run.dir, folder / "gcpo.jsonl", "compact_direct")
    rows = [json.loads(line) for line in (folder / "gcpo.jsonl").read_text().split("\n")[:-1]]
    reward = orms[ms_swift.NAME](args=None)
    columns = {name: [rows[0][name]] * 2 + [rows[1][name]] * 2 for name in rows[0] if name not in ("messages", "images")}
    ratios = reward([f"<score>{score}</score>" for score in (7, 5, 5, 2)], **columns)
    assert ratios == [1.0, 0.5, 0.5, 1.0], ratios
    return f"`editr1_gcpo` in `swift.rewards.orms`; ratios {ratios} over {number} exported rows"


def swift_rows(run: Run, folder: Path) -> str:
    from swift.dataset import load_dataset

    said = []
    for what in ("sft", "dpo", "pairs", "gcpo"):
        path = folder / f"{what}.jsonl"
        number = export_rows(run, path, what, "messages") if what != "gcpo" else len(path.read_text().split("\n")) - 1
        loaded = load_dataset([str(path)], shuffle=False)[0]
        first = loaded[0]
        assert len(loaded) == number, (what, len(loaded), number)
        assert len(first["images"]) == json.dumps(first["messages"]).count("<image>")
        said.append(f"{what} {number}")
    return "`swift.dataset.load_dataset` keeps every row and picture: " + ", ".join(said)


def verl_function(address: str) -> str:
    from omegaconf import OmegaConf
    from verl.trainer.ppo.reward import get_custom_reward_fn

    recipe = yaml.safe_load((ROOT / "recipes/integrations/verl_omni_pool.yaml").read_text())
    function = get_custom_reward_fn(OmegaConf.create(recipe))
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48), "teal").save(buffer, "PNG")
    edited = np.zeros((3, 48, 64), np.uint8)

    async def ask(instruction: str) -> dict[str, float]:
        extra = {"instruction": instruction, "source_image": buffer.getvalue()}
        found = function(data_source="edit", solution_image=edited, ground_truth="", extra_info=extra, server_url=address)
        return dict(await found)

    async def many() -> list[dict[str, float]]:
        return await asyncio.gather(*(ask("moody" if number % 4 == 0 else "make it red") for number in range(48)))

    scores = [row["score"] for row in asyncio.run(many())]
    assert scores == [7.5] * 48, scores
    return "`get_custom_reward_fn` finds `compute_score` by the recipe; 48 of 48 concurrent edits scored, 12 of them at the second try"


def trl_rows(run: Run, folder: Path) -> str:
    from trl.data_utils import is_conversational

    said = []
    for what in ("sft", "dpo", "pairs"):
        path = folder / f"{what}_trl.jsonl"
        number = export_rows(run, path, what, "trl")
        rows = [json.loads(line) for line in path.read_text().split("\n")[:-1]]
        assert all(is_conversational(row) for row in rows)
        said.append(f"{what} {number}")
    return "`is_conversational` takes every row: " + ", ".join(said)


def factory_rows(run: Run, folder: Path) -> str:
    """Exported rows through their loader, converter and the plug-in that puts pictures into a prompt."""
    sound = types.ModuleType("torchaudio")  # imported for sound, which these rows have none of; its builds are CUDA's
    sound.__spec__ = ModuleSpec("torchaudio", None)
    sys.modules.setdefault("torchaudio", sound)
    os.environ["DISABLE_VERSION_CHECK"] = "1"  # it names transformers up to 5.6; what reads rows does not need them
    from llamafactory.data.loader import _get_merged_dataset
    from llamafactory.hparams import DataArguments, ModelArguments
    from transformers import Seq2SeqTrainingArguments

    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}
    forms = {"sharegpt": {"messages": "conversations", "images": "images"}, "messages": {"messages": "messages", "images": "images"}}
    files, wanted = {}, {}
    for form, columns in forms.items():
        name = f"sft_{form}"
        wanted[name] = export_rows(run, folder / f"factory_{name}.jsonl", "sft", form)
        files[name] = {"file_name": f"factory_{name}.jsonl", "formatting": "sharegpt", "columns": columns}
        files[name] |= {"tags": tags} if form == "messages" else {}
    wanted["dpo"] = export_rows(run, folder / "factory_dpo.jsonl", "dpo", "sharegpt")
    columns = {"messages": "conversations", "images": "images", "chosen": "chosen", "rejected": "rejected"}
    files["dpo"] = {"file_name": "factory_dpo.jsonl", "formatting": "sharegpt", "ranking": True, "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps(files))
    said = []
    for name, number in wanted.items():
        arguments = DataArguments(dataset=name, dataset_dir=str(folder), template="qwen2_vl")
        training = Seq2SeqTrainingArguments(output_dir=str(folder / "out"), report_to=[], use_cpu=True)
        stage = "rm" if name == "dpo" else "sft"
        rows = _get_merged_dataset([name], ModelArguments(model_name_or_path="none"), arguments, training, stage=stage)
        assert len(rows) == number, (name, len(rows), number)
        for row in rows:
            text = "".join(turn["content"] for turn in row["_prompt"])
            assert text.count("<image>") == len(row["_images"]) > 0
            assert all(Path(picture).is_file() for picture in row["_images"])
            assert len(row["_response"]) == (2 if name == "dpo" else 1)
        said.append(f"{name} {number}")
    return "loader and converter keep every row with its pictures and answers: " + ", ".join(said)


def unirl(python: Path | None, address: str) -> Row:
    check = "`recipes/integrations/unirl.yaml` through `RewardService`"
    if python is None or not python.exists():
        return Row("unirl", check, "needs Python 3.12 or newer: `make trainers` takes it where `python3.12` is there", None)
    script, recipe = Path(__file__).with_name("_trainers_unirl.py"), ROOT / "recipes/integrations/unirl.yaml"
    told = subprocess.run([python, "-c", "import importlib.metadata as m; print(m.version('unirl'))"], capture_output=True, text=True)
    ran = subprocess.run([python, script, address, recipe], capture_output=True, text=True, timeout=600)
    last = (ran.stdout.strip().split("\n") if ran.returncode == 0 else ran.stderr.strip().split("\n"))[-1]
    return Row(f"unirl {told.stdout.strip()}", check, json.loads(last)["said"] if ran.returncode == 0 else last[:200], ran.returncode == 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    parser.add_argument("--unirl", type=Path, metavar="PYTHON", help="a Python 3.12 with unirl")
    parser.add_argument("--peers", type=Path, metavar="DIR", help="folder with the trees Flow-Factory, verl-omni and flow_grpo")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, service() as address:
        folder = Path(name)
        run = make_run(folder / "run", training=False)
        rows = [
            attempt("ms_swift", "reward function in its registry", lambda: swift_registry(run, folder)),
            attempt("ms_swift", "exported rows through its loader", lambda: swift_rows(run, folder)),
            attempt("verl", "reward function by its loader, with an unsteady judge", lambda: verl_function(address)),
            attempt("trl", "exported rows", lambda: trl_rows(run, folder)),
            attempt("llamafactory", "exported rows through its loader", lambda: factory_rows(run, folder)),
            unirl(args.unirl, address),
            *check_trees(args.peers, address),
        ]
    written_by = f"Written by `make trainers` (`benchmarks/trainers.py`), Python {platform.python_version()}, editr1 {editr1.__version__}."
    return conclude("Our plug-ins inside the real trainers", written_by, "checks inside real trainers", rows, args.out)


if __name__ == "__main__":
    sys.exit(main())
