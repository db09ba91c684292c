"""Checks of other people's programs as a table: what was asked, what came of it, whether it holds."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """One check."""

    package: str
    check: str
    result: str
    holds: bool | None
    """None where the package is not there, and for a figure without a goal."""


def version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def attempt(package: str, check: str, work: Callable[[], str]) -> Row:
    """The row of a check whose `work` says what it saw, and raises where that is wrong."""
    if version(package) is None:
        return Row(package, check, "not installed", None)
    try:
        return Row(f"{package} {version(package)}", check, work(), True)
    except Exception as error:  # noqa: BLE001 - whatever another package raises is the result of its check
        return Row(f"{package} {version(package)}", check, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}", False)


def conclude(title: str, written_by: str, what: str, rows: Sequence[Row], out: Path | None) -> int:
    """Prints the page and its JSON line, writes the page to `out`; 0 when all that could be checked holds."""
    state = {True: "holds", False: "FAILS", None: "-"}
    lines = [
        f"# {title}",
        "",
        written_by,
        "",
        "| package | check | result | |",
        "|---|---|---|---|",
        *(f"| {row.package} | {row.check} | {row.result.replace('|', '/')} | {state[row.holds]} |" for row in rows),
    ]
    checked = [row for row in rows if row.holds is not None]
    right = sum(bool(row.holds) for row in checked)
    holds = right == len(checked) > 0
    text = "\n".join(lines) + "\n"
    print(text)
    if out:
        out.write_text(text, encoding="utf-8")
    print(json.dumps({"what": what, "value": right, "n": len(checked), "goal": "all that can be had", "holds": holds}))
    return 0 if holds else 1
