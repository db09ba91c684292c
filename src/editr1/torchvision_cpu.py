"""Lets torchvision be imported beside a CPU build of torch.

The Qwen-VL processors need torchvision. A package index may serve only its CUDA build; beside a CPU torch that build
cannot load its C library, and importing it fails with "operator torchvision::nms does not exist" - and with it
transformers' AutoProcessor, trl, diffusers and peft. Declaring the two operator schemas that torchvision's
Python files decorate is all that the import needs. With a CUDA torch nothing is done; the C operators themselves
stay unavailable and say so when called.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

_SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)


class _DeclareBeforeTorchvision(importlib.abc.MetaPathFinder):
    """Runs once, at the first import of torchvision, then steps aside."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname == "torchvision":
            sys.meta_path.remove(self)
            _declare_schemas()
        return None


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


def install() -> None:
    """Arrange for the schemas to be declared when torchvision is first imported. Imports nothing itself."""
    if "torchvision" not in sys.modules and not any(isinstance(f, _DeclareBeforeTorchvision) for f in sys.meta_path):
        sys.meta_path.insert(0, _DeclareBeforeTorchvision())
