"""Scoring through a served vLLM against vLLM's own offline `LLM.chat` of the same requests, for `engines.py`: throughput, in turns.

Seconds are those of the processor, of client and server together: on a CPU they are what limits, and other programs beside do not count.
As a program this file is the offline side: one line `START END` in, the edits of a run asked, one line of JSON out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from _engines_run import JUDGE, items
from _engines_server import MAX_MODEL_LEN, MAX_NUM_SEQS, NAME, environment

from editr1.judge.rrm import RewardItem, RewardModel
from editr1.schema import Reward
from editr1.store import Run
from editr1.text import without_control_tokens
from editr1.vlm import openai_api
from editr1.vlm.base import ChatReply, ChatRequest, Sampling

SHARE = 0.9  # of the offline throughput; the goal
ROUNDS = 5
EDITS = 24  # a round, others each time: neither side finds a prompt in its caches
TRACES = 4
SAMPLING = Sampling(0.7, max_tokens=160)


def _rewards(vlm: Any, edits: Sequence[RewardItem]) -> list[Reward]:
    return RewardModel(vlm, "compact", TRACES, SAMPLING).score(edits)


def cpu_seconds(process: psutil.Process) -> float:
    """Of a process and those that it has started, so far."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return sum(each.user + each.system for each in times)


def throughput(run: Run, address: str, server: int, log: Path) -> str:
    """Tokens a second of both sides, round by round, first the one, then the other. server: its process."""
    edits = items(run, ROUNDS * EDITS + 1)
    served = openai_api.build(NAME, base_url=address, max_concurrency=2 * MAX_NUM_SEQS)
    command = [sys.executable, __file__, str(run.dir)]
    with log.open("w") as file, subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=file, text=True, env=environment()
    ) as offline:  # fmt: skip
        try:
            _ask(offline, ROUNDS * EDITS, ROUNDS * EDITS + 1)  # it has loaded its model
            _rewards(served, edits[-1:])
            spent: list[tuple[float, float]] = []
            same = asked = tokens = 0
            engine = psutil.Process(server)
            for number in range(ROUNDS):
                start, end = number * EDITS, (number + 1) * EDITS
                told = _ask(offline, start, end) if number % 2 else None
                begin = cpu_seconds(engine), time.process_time()
                traces = [trace for reward in _rewards(served, edits[start:end]) for trace in reward.traces]
                seconds = cpu_seconds(engine) - begin[0] + time.process_time() - begin[1]
                told = told or _ask(offline, start, end)
                spent.append((seconds, told["seconds"] * sum(trace.num_tokens for trace in traces) / told["tokens"]))
                tokens += sum(trace.num_tokens for trace in traces)
                same += sum(a.text == b for a, b in zip(traces, told["texts"], strict=True))
                asked += len(traces)
        finally:
            offline.kill()
    ours, theirs = (sum(side) for side in zip(*spent, strict=True))
    told = (
        f"{ROUNDS} rounds of {EDITS} edits x {TRACES} traces in turns, texts equal {same}/{asked}: served {tokens / ours:.0f} tokens a "
        f"second of the processor, offline {tokens / theirs:.0f}: {theirs / ours:.2f}, goal {SHARE}; by rounds "
        f"{', '.join(f'{b / a:.2f}' for a, b in spent)}"
    )
    assert theirs / ours >= SHARE, told
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

    def __init__(self, checkpoint: Path) -> None:
        from vllm import LLM

        size: dict[str, Any] = {"dtype": "float32", "enforce_eager": True, "max_model_len": MAX_MODEL_LEN, "max_num_seqs": MAX_NUM_SEQS}
        self.llm = LLM(str(checkpoint), generation_config="vllm", **size)
        self.process, self.seconds = psutil.Process(), 0.0

    def chat(self, requests: Sequence[ChatRequest]) -> list[ChatReply]:
        from vllm import SamplingParams

        conversations = [_conversation(request) for request in requests]
        how = [
            SamplingParams(temperature=r.sampling.temperature, top_p=r.sampling.top_p, max_tokens=r.sampling.max_tokens, seed=r.seed)
            for r in requests
        ]
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
    run = Run.open(Path(sys.argv[1]), create=False)
    edits = items(run, ROUNDS * EDITS + 1)
    engine = Offline(run.dir / JUDGE)
    for line in sys.stdin:
        start, end = map(int, line.split())
        traces = [trace for reward in _rewards(engine, edits[start:end]) for trace in reward.traces]
        told = {"seconds": engine.seconds, "tokens": sum(trace.num_tokens for trace in traces), "texts": [trace.text for trace in traces]}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
