"""docs/results/hardware_checks.md names tests, parts of gpu_check and files that exist."""

from __future__ import annotations

import re

from pages import ROOT

PAGE = ROOT / "docs" / "results" / "hardware_checks.md"
ROWS = [
    [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in PAGE.read_text("utf-8").splitlines() if line.startswith("| ")
]
FAULTS = [row for row in ROWS if row[0] != "fault"]


def test_every_fault_is_held_by_a_test_or_a_command_that_exists() -> None:
    parts = re.findall(r'^    "(\w+)": \(\d', (ROOT / "benchmarks" / "_gpu_parts.py").read_text("utf-8"), re.M)
    for fault, _, holder, seen in FAULTS:
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", holder)
        for file, name in tests:
            assert f"def {name}(" in (ROOT / file).read_text("utf-8"), (fault, name)
        measured = re.findall(r"`gpu_check (\w+)`", f"{holder} {seen}")
        assert set(measured) <= set(parts), fault
        assert tests or re.search(r"`(gpu_check|make) \w+`", holder), fault


def test_every_owner_exists() -> None:
    sources = "\n".join(path.read_text("utf-8") for path in (ROOT / "src").rglob("*.py"))
    for fault, owners, *_ in FAULTS:
        for owner in re.findall(r"`([\w./]+)`", owners):
            assert (ROOT / owner).exists() or re.search(rf"^(def|class) {owner}\b", sources, re.M), (fault, owner)


def test_the_page_covers_the_three_ways_in_which_faults_came_to_light() -> None:
    assert len(FAULTS) > 35
    assert len(ROWS) - len(FAULTS) == 3
