"""Two processes that share every weight (FSDP2) take the step of one, and look at the same held-out pairs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import sharded_ranks
from editr1.training.model import converted, unsharded
from launched import launch
from tiny_run import build_tiny_run, build_tiny_verifier


def test_a_gcpo_step_of_two_sharded_processes_is_that_of_one(tmp_path: Path) -> None:
    verifier, run_dir = build_tiny_verifier(tmp_path / "verifier"), build_tiny_run(tmp_path / "run")
    sharded_ranks.main(str(verifier), str(run_dir), str(tmp_path / "one.json"))
    one = json.loads((tmp_path / "one.json").read_text())
    two = launch(Path(sharded_ranks.__file__), verifier, run_dir, tmp_path / "two.json")
    assert two["traces"] == one["traces"]
    assert two["loss"] == pytest.approx(one["loss"], abs=1e-5)
    assert two["held_out"] == one["held_out"]
    assert any(abs(value) > 1e-6 for gradient in one["gradients"].values() for value in gradient)
    assert two["gradients"].keys() == one["gradients"].keys()
    for name, gradient in one["gradients"].items():
        torch.testing.assert_close(torch.tensor(two["gradients"][name]), torch.tensor(gradient), atol=1e-5, rtol=1e-4, msg=name)


def test_weights_are_whole_inside_and_sharded_after(tmp_path: Path) -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    try:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        plain = [p.detach().clone() for p in model.parameters()]
        mesh = init_device_mesh("cpu", (1,))
        fully_shard(model[0], mesh=mesh, reshard_after_forward=True)
        fully_shard(model, mesh=mesh)
        with unsharded(model), torch.no_grad():
            for _ in range(2):  # the first forward must not shard them again
                model(torch.zeros(1, 4))
                assert all(type(p) is torch.nn.Parameter for p in model.parameters())
        assert all(type(p).__name__ == "DTensor" for p in model.parameters())
        assert all(torch.equal(p.full_tensor(), q) for p, q in zip(model.parameters(), plain, strict=True))
    finally:
        torch.distributed.destroy_process_group()


def test_masters_come_back_as_they_were_even_after_an_error() -> None:
    model = torch.nn.Linear(4, 4)
    masters = [p.data for p in model.parameters()]
    seen = []
    try:
        with converted(model, torch.bfloat16):
            seen += [p.dtype for p in model.parameters()]
            raise MemoryError
    except MemoryError:
        assert set(seen) == {torch.bfloat16}
    assert all(p.data.data_ptr() == master.data_ptr() for p, master in zip(model.parameters(), masters, strict=True))
    with converted(model, None):
        assert {p.dtype for p in model.parameters()} == {torch.float32}
