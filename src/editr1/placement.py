"""Where a computation runs and in which numbers: attention kernels, TF32, processes, devices, sharding, compilation.

Everything that trains or generates with weights of its own asks here: edit-rl, sft, gcpo, local scoring, the served judge.

    prepare(placement)              before the first forward
    make_accelerator(placement)     before any model: it decides this process' device
    place_of(device)                where a judge or an editor that is loaded now lives
    shard(...), compile_blocks(...) for models that are too large, or too slow

No torch at import: recipes are checked before anything heavy is loaded.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from editr1.errors import ConfigError

if TYPE_CHECKING:
    import torch

ATTENTION = ("flash", "efficient", "math", "cudnn")
"""Kernels of torch's scaled_dot_product_attention."""


@dataclass(frozen=True)
class Placement:
    """How a computation is laid out on its machines. Nothing here changes what is computed, but for rounding."""

    attention: tuple[str, ...] = ("flash", "efficient", "math")
    """Attention kernels that torch may choose from. ours: without `cudnn`, torch's first choice on Hopper and later: its backward dies on
    an H100 ("mha_graph.execute(...).is_good()", pytorch#190321), and on a B200 it silently corrupts what is generated (pytorch#193893)."""
    tf32: bool = True
    """Products of float32 matrices in TF32 on a GPU: 10 bits of mantissa, more than the bfloat16 around them. Step arithmetic,
    log-densities and losses hold no matrix product and stay float32."""
    compile: bool = False
    """torch.compile of the repeated blocks, one graph for all of them, static shapes: minutes at the first batch of each shape."""
    timeout_minutes: float = 120.0
    """How long a process waits for the others. ours: torch gives up after 10 minutes, a busy judge can keep one process longer."""

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.attention) - set(ATTENTION)):
            raise ValueError(f"unknown attention kernel {unknown[0]!r}; expected some of {', '.join(ATTENTION)}")
        if not self.attention:
            raise ValueError(f"attention names no kernel; expected some of {', '.join(ATTENTION)}")
        if self.timeout_minutes <= 0:
            raise ValueError(f"timeout_minutes is {self.timeout_minutes}, expected a positive number")


def share_cores() -> None:
    """Threads of this process and its children that wait for one another sleep, in place of spinning. To be called before torch is loaded.

    Beside another busy program a spinning thread keeps the very core that the thread it waits for needs: a training step on two cores took
    twenty times as long. What the user has set stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read by libgomp and libiomp when they are loaded


_chosen = False


def prepare(placement: Placement) -> None:
    """Sets torch's attention kernels and matrix precision for this process."""
    import torch

    global _chosen
    _chosen = True
    kernels = torch.backends.cuda
    kernels.enable_flash_sdp("flash" in placement.attention)
    kernels.enable_mem_efficient_sdp("efficient" in placement.attention)
    kernels.enable_math_sdp("math" in placement.attention)
    kernels.enable_cudnn_sdp("cudnn" in placement.attention)
    if torch.cuda.is_available():
        torch.set_float32_matmul_precision("high" if placement.tf32 else "highest")


def make_accelerator(placement: Placement, **options: Any) -> Any:
    """accelerate's Accelerator with a process group that waits as long as `placement` says. Prepares this process, checks the launch."""
    import torch
    from accelerate import Accelerator, InitProcessGroupKwargs

    prepare(placement)
    patience = InitProcessGroupKwargs(timeout=timedelta(minutes=placement.timeout_minutes))
    try:
        accelerator = Accelerator(cpu=not torch.accelerator.is_available(), kwargs_handlers=[patience], **options)
    except ValueError as error:  # a tracker that it does not know
        raise ConfigError(f"accelerate: {error}") from error
    check_joined(accelerator.num_processes)
    return accelerator


def check_joined(num_processes: int) -> None:
    """Raises ConfigError for a launch that cannot work: processes that did not meet would train alone, two on one GPU fail in NCCL."""
    import torch

    here, cards = int(os.environ.get("LOCAL_WORLD_SIZE", "1")), torch.accelerator.device_count()
    if here > cards and local_device().type != "cpu":
        raise ConfigError(
            f"{here} processes were started on this machine, which has {cards} GPU(s); expected one process a GPU: start "
            f"--nproc_per_node {cards}, or set ACCELERATE_USE_CPU=true to train on the CPU"
        )
    expected = int(os.environ.get("WORLD_SIZE", "1"))
    if num_processes != expected:
        raise ConfigError(
            f"the launcher set WORLD_SIZE={expected} but {num_processes} process(es) joined: start with `torchrun --nproc_per_node N -m -- "
            "editr1.cli ...` (accelerate launch --cpu starts one whatever it is told), and unset ACCELERATE_USE_CPU on machines with GPUs"
        )


def local_device() -> torch.device:
    """This process' own device: the accelerator's once there is one, else the one that the launcher's LOCAL_RANK names.

    Never makes a process group, so that it can be asked before `make_accelerator` as well.
    """
    import torch
    from accelerate.state import PartialState

    if PartialState._shared_state:
        return torch.device(PartialState().device)
    if not torch.accelerator.is_available() or os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes"):
        return torch.device("cpu")
    kind = torch.accelerator.current_accelerator()
    assert kind is not None
    return torch.device(kind.type, int(os.environ.get("LOCAL_RANK", "0")) % torch.accelerator.device_count())


def place_of(device: str | None = None) -> torch.device:
    """Where weights that are loaded now live: the device named, with None or `auto` this process' own.

    Prepares the process with the defaults, unless a trainer's recipe has chosen already: whoever loads weights will run attention.
    Raises ConfigError for what is no device.
    """
    import torch

    if not _chosen:
        prepare(Placement())
    try:
        return local_device() if device in (None, "auto") else torch.device(device)
    except RuntimeError as error:
        raise ConfigError(f"unknown device {device!r}; expected auto, cpu, cuda or cuda:N") from error


def adopt_device() -> None:
    """Makes `local_device()` the current one of a new thread, where it would be the machine's first: judges score in threads."""
    import torch

    device = local_device()
    if device.index is not None and torch.accelerator.is_available():
        torch.accelerator.set_device_index(device.index)


def shard(
    model: Any, blocks: Iterable[Any], device: torch.device, num_processes: int, ignored: Iterable[Any] = (), keep_gathered: bool = False
) -> None:  # fmt: skip
    """FSDP2: each process keeps a part of every weight, gathered block by block when it is used; nothing to do for one process.

    `ignored` parameters stay whole on each process, on `device`; the gradients of the others are summed over processes, in float32. All
    processes must make the same forwards. Weights may still lie on the CPU: a block reaches the device only once it has been cut. Weights
    are gathered anew for each forward and each backward (ZeRO-3), so that parts may be written to in between; with `keep_gathered` once,
    until `drop_gathered` (ZeRO-2). Source: torch.distributed.fsdp.fully_shard.
    """
    if num_processes == 1:
        return
    import torch
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    mesh, kept = init_device_mesh(device.type, (num_processes,)), set(ignored)
    for parameter in kept:
        parameter.data = parameter.data.to(device)
    precision = MixedPrecisionPolicy(reduce_dtype=torch.float32)
    for module in [*blocks, model]:
        fully_shard(module, mesh=mesh, ignored_params=kept, mp_policy=precision, reshard_after_forward=not keep_gathered)
        module.set_reshard_after_backward(not keep_gathered, recurse=False)
        module.set_force_sum_reduction_for_comms(True)  # with the next line: a sum, where FSDP2 averages
        module.set_gradient_divide_factor(1.0)


def drop_gathered(model: Any) -> None:
    """Leaves a sharded model its own parts alone: the next forward reads what was written to them. Nothing to do for other models."""
    from torch.distributed.fsdp import FSDPModule

    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def repeated_blocks(model: Any) -> list[Any]:
    """The blocks that a diffusers or transformers model repeats, by the class names that it must not split."""
    names = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in names]


def compile_blocks(model: Any) -> None:
    """torch.compile of the repeated blocks in place: one graph a class, compiled anew for every shape.

    Raises ConfigError for a model that names no repeated block.
    """
    import torch

    blocks = repeated_blocks(model)
    if not blocks:
        raise ConfigError(f"{type(model).__name__} names no repeated blocks (_no_split_modules), so there is nothing to compile by parts")
    # with and without gradient, with and without LoRA, a row or a group: more variants than torch's limit of 8
    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in blocks:
        block.compile(dynamic=False)


# --- torchvision beside a CPU build of torch ----------------------------------------------------------

# The Qwen-VL processors need torchvision. A package index may serve only its CUDA build; beside a CPU torch that build cannot load its C
# library, and importing it fails with "operator torchvision::nms does not exist" - and with it transformers' AutoProcessor, trl, diffusers
# and peft. Declaring the two operator schemas that its Python files decorate is all that the import needs. With a CUDA torch nothing is
# done; the C operators themselves stay unavailable and say so when called.
_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareBeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, at the first import of torchvision, then steps aside."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_schemas()


_library = None  # torch forgets a fragment's schemas when the Library object dies


def _declare_schemas() -> None:
    global _library
    import torch

    if torch.version.cuda is not None or _c_library_loads():
        return
    _library = torch.library.Library("torchvision", "FRAGMENT")
    for schema in _SCHEMAS:
        _library.define(schema)


def _c_library_loads() -> bool:
    """A torchvision that was built for this torch registers the operators itself; declaring them twice is an error."""
    import torch

    spec = importlib.machinery.PathFinder.find_spec("torchvision")
    if spec is None or spec.origin is None:
        return False
    libraries = sorted(Path(spec.origin).parent.glob("_C.*"))
    try:
        for library in libraries:
            torch.ops.load_library(library)
    except OSError:
        return False
    return bool(libraries)


def install_torchvision() -> None:
    """Arrange for the schemas to be declared when torchvision is first imported. Imports nothing itself."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _DeclareBeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _DeclareBeforeTorchvision())
