"""Compare the run's judges on held-out human pairs and its editors on held-out tasks, into 10_metrics.jsonl."""

from __future__ import annotations

import argparse

from editr1.commands._stage import add_stage_arguments, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_arguments(parser)


def main(args: argparse.Namespace) -> int:
    return run_stage("evaluate", args)
