"""Pretrain the embedded world's editor or verifier, the stand-ins for FLUX.1-Kontext and Qwen2.5-VL."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from editr1.errors import ConfigError

SHIPPED = Path(__file__).parent.parent / "world" / "weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=("editor", "verifier"), help="the verifier also looks at the editor's pictures")
    parser.add_argument("--out", type=Path, help="folder for the checkpoint and its training log (default: the package's own)")
    parser.add_argument("--editor", type=Path, help="editor whose pictures the verifier also sees (default: the package's own)")
    parser.add_argument(
        "--size", choices=("base", "small"), default="base", help="verifier: small is cut from the package's own and trained on"
    )
    parser.add_argument("--steps", type=int, help="training steps (default: what the shipped checkpoint had)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="torch threads")


def main(args: argparse.Namespace) -> int:
    import torch

    if args.size != "base" and args.what != "verifier":
        raise ConfigError(f"--size {args.size} is for the verifier; the {args.what} has one size")
    torch.set_num_threads(args.threads)
    chosen = {"seed": args.seed} | ({"steps": args.steps} if args.steps else {})
    out = args.out or SHIPPED / (args.what if args.size == "base" else f"{args.what}_{args.size}")
    if args.what == "editor":
        from editr1.world import pretrain_editor

        pretrain_editor.run(pretrain_editor.Config(**chosen), out)
    else:
        from editr1.world import pretrain_verifier

        config = pretrain_verifier.Config(**chosen)
        if args.size == "small":
            config = replace(pretrain_verifier.SMALL, **chosen)
        init = SHIPPED / "verifier" if args.size == "small" else None
        pretrain_verifier.run(config, out, args.editor or SHIPPED / "editor", init)
    return 0
