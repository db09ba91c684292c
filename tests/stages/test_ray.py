"""`--engine ray` on a local two-process cluster gives the bytes of the local engine, and the same errors."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from editr1.cli import main
from editr1.errors import BackendError

ray = pytest.importorskip("ray")
RECIPE = Path(__file__).parent / "data_loop.yaml"
STAGES = ("tasks", "decompose", "generate", "score")


@pytest.fixture(scope="module")
def _cluster() -> Iterator[None]:
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    yield
    ray.shutdown()


def content(run_dir: Path) -> dict[str, bytes]:
    files = {str(p.relative_to(run_dir)): p for p in run_dir.rglob("*") if p.is_file()}
    skip = (".seconds.jsonl", ".lock", "config.json")  # config.json names the engine
    return {name: p.read_bytes() for name, p in files.items() if not name.endswith(skip) and ".incoming" not in name}


@pytest.mark.usefixtures("_cluster")
def test_ray_and_local_give_the_same_bytes(tmp_path: Path) -> None:
    for run, engines in {"local": ("local", "local"), "ray": ("local", "ray")}.items():
        for stage in STAGES:
            engine = engines[stage in ("generate", "score")]  # a pipeline of Ray Data takes seconds to start
            assert main([stage, "--config", str(RECIPE), "--run", str(tmp_path / run), "--engine", engine]) == 0
    local, distributed = content(tmp_path / "local"), content(tmp_path / "ray")
    assert local.keys() == distributed.keys()
    assert [name for name in local if local[name] != distributed[name]] == []


class Dead:
    """A model whose endpoint is down."""

    name = "dead"

    def chat(self, requests: Sequence[object]) -> list[object]:
        raise BackendError("http://localhost:1/v1 did not answer")


@pytest.mark.usefixtures("_cluster")
def test_a_dead_backend_in_a_ray_worker_is_one_line_and_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = ["--config", str(RECIPE), "--run", str(tmp_path / "run")]
    assert main(["tasks", *common]) == 0
    assert main(["decompose", *common, "--engine", "ray", "--set", f"decompose.vlm={__name__}:Dead"]) == 2
    error = capsys.readouterr().err
    assert "http://localhost:1/v1 did not answer" in error
    assert error.count("\n") == 1
