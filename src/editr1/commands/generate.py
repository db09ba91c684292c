"""Let several editors make candidates for every task into 03_candidates."""

from __future__ import annotations

import argparse

from editr1.commands._stage import add_stage_arguments, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_arguments(parser, engine=True)


def main(args: argparse.Namespace) -> int:
    return run_stage("generate", args)
