"""One room for attention kernels, precision, processes and devices."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from editr1 import placement
from editr1.bench.judges import editreward
from editr1.config import Component, create
from editr1.editors import _dit
from editr1.placement import Placement, local_device, make_accelerator, prepare, repeated_blocks
from editr1.training.options import Machine, Schedule
from editr1.training.trainer import common_arguments


@pytest.fixture
def kernels():
    """Puts torch's process-wide switches back."""
    names = ("flash", "mem_efficient", "math", "cudnn")
    before = {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in names}
    precision = torch.get_float32_matmul_precision()
    yield lambda: {name: getattr(torch.backends.cuda, f"{name}_sdp_enabled")() for name in names}
    for name, value in before.items():
        getattr(torch.backends.cuda, f"enable_{name}_sdp")(value)
    torch.set_float32_matmul_precision(precision)


def test_cudnns_attention_is_off_unless_it_is_asked_for(kernels):
    torch.backends.cuda.enable_cudnn_sdp(True)
    prepare(Placement())
    assert kernels() == {"flash": True, "mem_efficient": True, "math": True, "cudnn": False}
    prepare(Placement(attention=("cudnn", "math")))
    assert kernels() == {"flash": False, "mem_efficient": False, "math": True, "cudnn": True}


@pytest.mark.parametrize("cuda", [True, False])
@pytest.mark.parametrize(("tf32", "precision"), [(True, "high"), (False, "highest")])
def test_tf32_is_for_gpus_alone(kernels, monkeypatch, cuda, tf32, precision):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    torch.set_float32_matmul_precision("medium")
    prepare(Placement(tf32=tf32))
    assert torch.get_float32_matmul_precision() == (precision if cuda else "medium")


@pytest.mark.parametrize("settings", [{"attention": ("fast",)}, {"attention": ()}, {"timeout_minutes": 0}])
def test_impossible_placements_are_refused(settings):
    with pytest.raises(ValueError, match=r"attention|timeout_minutes"):
        Placement(**settings)


def test_the_process_group_outlasts_a_slow_judge(kernels, monkeypatch):
    seen = {}

    class Fake:
        num_processes = 1

        def __init__(self, **options):
            seen.update(options)

    monkeypatch.setattr("accelerate.Accelerator", Fake)
    make_accelerator(Placement(timeout_minutes=45.0), project_dir="x")
    (handler,) = seen["kwargs_handlers"]
    assert handler.timeout.total_seconds() == 45 * 60
    assert seen["project_dir"] == "x"
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(placement.ConfigError, match="joined"):
        make_accelerator(Placement())


def test_more_processes_than_cards_are_refused_before_they_meet_in_nccl(monkeypatch):
    import torch

    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 1)
    monkeypatch.setattr(placement, "local_device", lambda: torch.device("cuda", 0))
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(placement.ConfigError, match="--nproc_per_node 1"):
        placement.check_joined(2)
    monkeypatch.setattr(placement, "local_device", lambda: torch.device("cpu"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    placement.check_joined(2)


def test_the_trainers_of_a_verifier_outlast_it_too(tmp_path):
    arguments = common_arguments(tmp_path, Schedule(), Machine(placement=Placement(timeout_minutes=45.0)), steps=1, rows=8, seed=0)
    assert arguments["ddp_timeout"] == 45 * 60


def ask_device(**environment):
    """local_device() of a fresh process that believes in 4 GPUs."""
    code = (
        "import os, torch\n"
        "torch.accelerator.is_available = lambda: True\n"
        "torch.accelerator.current_accelerator = lambda *a, **k: torch.device('cuda')\n"
        "torch.accelerator.device_count = lambda: 4\n"
        "from editr1.placement import local_device\n"
        "print(local_device(), torch.distributed.is_initialized())"
    )
    import os

    env = {name: value for name, value in os.environ.items() if name not in ("LOCAL_RANK", "ACCELERATE_USE_CPU")} | environment
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout.split()


def test_each_process_has_a_device_of_its_own_before_and_after_the_process_group(monkeypatch):
    assert ask_device(LOCAL_RANK="3") == ["cuda:3", "False"]
    assert ask_device() == ["cuda:0", "False"]
    assert ask_device(LOCAL_RANK="1", ACCELERATE_USE_CPU="true") == ["cpu", "False"]
    monkeypatch.setattr("accelerate.state.PartialState._shared_state", {"device": torch.device("cuda:2")})
    monkeypatch.setattr("accelerate.state.PartialState.__init__", lambda self: self.__dict__.update(device=torch.device("cuda:2")))
    assert str(local_device()) == "cuda:2"


@pytest.fixture
def unchosen(kernels, monkeypatch):
    """A process that has loaded nothing yet, on the fourth GPU of its machine, with torch's own choice of kernels."""
    monkeypatch.setattr(placement, "_chosen", False)
    monkeypatch.setattr(placement, "local_device", lambda: torch.device("cuda:3"))
    torch.backends.cuda.enable_cudnn_sdp(True)
    return kernels


@pytest.mark.parametrize(("named", "place"), [(None, "cuda:3"), ("auto", "cuda:3"), ("cpu", "cpu"), ("cuda:1", "cuda:1")])
def test_whoever_loads_weights_gets_a_place_and_safe_kernels(unchosen, named, place):
    assert str(placement.place_of(named)) == place
    assert not unchosen()["cudnn"]
    prepare(Placement(attention=("cudnn", "math")))
    placement.place_of(named)  # what a recipe chose stays
    assert unchosen()["cudnn"]


def test_what_is_no_device_is_named():
    with pytest.raises(placement.ConfigError, match="unknown device 'gpu'; expected auto, cpu, cuda"):
        placement.place_of("gpu")


def test_an_editor_that_only_generates_runs_without_cudnns_attention_on_its_own_card(unchosen):
    moved = []
    _dit.frozen(SimpleNamespace(components={}, to=moved.append))
    assert moved == ["cuda:3"]
    assert not unchosen()["cudnn"]


def test_a_judge_of_another_family_too(unchosen, monkeypatch):
    """Judges of all processes on the first card are out of memory on it."""
    asked = []
    monkeypatch.setattr(editreward, "_load", lambda checkpoint, base, place, pixels: (asked.append(place), (None, [], None))[1])
    monkeypatch.setattr(editreward, "_read_prompts", lambda folder: ({}, ""))
    monkeypatch.setattr(editreward, "EditRewardJudge", lambda *parts: parts)
    create("judges", Component("editreward", {"checkpoint": "weights"}))
    assert asked == ["cuda:3"]
    assert not unchosen()["cudnn"]


def test_a_new_thread_works_on_this_process_device(monkeypatch):
    chosen = []
    monkeypatch.setattr(placement, "local_device", lambda: torch.device("cuda:3"))
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    placement.adopt_device()
    monkeypatch.setattr(placement, "local_device", lambda: torch.device("cpu"))
    placement.adopt_device()
    assert chosen == [3]


def test_compiling_by_blocks_needs_blocks():
    with pytest.raises(placement.ConfigError, match="repeated blocks"):
        placement.compile_blocks(torch.nn.Linear(2, 2))


def test_every_block_is_compiled_alone(monkeypatch):
    class Block(torch.nn.Linear):
        pass

    model = torch.nn.Sequential(Block(2, 2), torch.nn.ReLU(), Block(2, 2))
    model._no_split_modules = ["Block"]
    asked = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **options: asked.append((self, options)))
    placement.compile_blocks(model)
    assert repeated_blocks(model) == [model[0], model[2]]
    assert asked == [(model[0], {"dynamic": False}), (model[2], {"dynamic": False})]


def test_threads_of_a_command_wait_asleep_and_a_users_own_setting_stays():
    """Set before torch, whose OpenMP library reads it once."""
    code = (
        "import os, sys; from editr1 import cli, placement\n"
        "shared = placement.share_cores\n"
        "cli.share_cores = lambda: (print('torch' in sys.modules), shared())\n"
        "try: cli.main(['--version'])\n"
        "except SystemExit: print(os.environ['OMP_WAIT_POLICY'])"
    )
    for own, expected in (({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")):
        environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"} | own
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout.split()
        assert (said[0], said[-1]) == ("False", expected)
