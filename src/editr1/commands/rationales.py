"""Write traces that explain people's pairs into 07_rationales, for SFT in place of GCPO."""

from __future__ import annotations

import argparse

from editr1.commands._stage import add_stage_arguments, run_stage


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_stage_arguments(parser, engine=True)


def main(args: argparse.Namespace) -> int:
    return run_stage("rationales", args)
