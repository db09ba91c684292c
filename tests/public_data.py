"""Fixtures: where the published raw data lies, beside the checkout or where EDITR1_PUBLIC_DATA says."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

BESIDE = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def public_data() -> Path:
    folder = Path(os.environ.get("EDITR1_PUBLIC_DATA", BESIDE))
    if not (folder / "published_tables.json").is_file():
        pytest.skip(f"the public raw data is not at {folder} (set EDITR1_PUBLIC_DATA to a folder that has it)")
    return folder


@pytest.fixture(scope="session")
def published(public_data: Path) -> dict[str, Any]:
    return json.loads((public_data / "published_tables.json").read_text())
