"""Pretrain the embedded world's editor or verifier, the stand-ins for FLUX.1-Kontext and Qwen2.5-VL.

python -m research.pretrain_world editor
python -m research.pretrain_world verifier --size small
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

import editr1
from research import pretrain_editor, pretrain_verifier

SHIPPED = Path(editr1.__file__).parent / "world" / "weights"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="research.pretrain_world", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("what", choices=("editor", "verifier"), help="the verifier also looks at the editor's pictures")
    parser.add_argument("--out", type=Path, help="folder for the checkpoint and its training log (default: the package's own)")
    parser.add_argument("--editor", type=Path, help="editor whose pictures the verifier also sees (default: the package's own)")
    parser.add_argument(
        "--size", choices=("base", "small"), default="base", help="verifier: small is cut from the package's own and trained on"
    )
    parser.add_argument("--steps", type=int, help="training steps (default: what the shipped checkpoint had)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Trains the one that is named and writes its checkpoint."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.size != "base" and args.what != "verifier":
        parser.error(f"--size {args.size} is for the verifier; the {args.what} has one size")
    torch.set_num_threads(args.threads)
    chosen = {"seed": args.seed} | ({"steps": args.steps} if args.steps else {})
    out = args.out or SHIPPED / (args.what if args.size == "base" else f"{args.what}_{args.size}")
    if args.what == "editor":
        pretrain_editor.run(pretrain_editor.Config(**chosen), out)
        return 0
    start = pretrain_verifier.SMALL if args.size == "small" else pretrain_verifier.Config()
    init = SHIPPED / "verifier" if args.size == "small" else None
    pretrain_verifier.run(replace(start, **chosen), out, args.editor or SHIPPED / "editor", init)
    return 0


if __name__ == "__main__":
    sys.exit(main())
