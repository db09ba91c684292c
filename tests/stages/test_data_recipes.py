"""The shipped recipe of the data engine builds, and states the paper's values."""

from __future__ import annotations

from pathlib import Path

import pytest

from editr1.config import create, load_recipe, section
from editr1.stages import decompose, generate, inspect, pairs, score, tasks

RECIPE = Path(__file__).parents[2] / "recipes" / "paper" / "data_engine.yaml"


def test_the_data_engine_recipe_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    recipe = load_recipe(RECIPE)
    found = section(recipe, "tasks", tasks.Config)
    assert found.filter is not None
    assert (found.num_random, found.filter.num_hard) == (100_000, 100_000)  # paper, section 3.1
    assert section(recipe, "pairs", pairs.Config).max_pairs == 10_000  # paper, section 3.2
    editors = section(recipe, "generate", generate.Config).editors
    assert sum(spec.num_seeds for spec in editors) == 10
    vlms = [member.vlm for member in section(recipe, "score", score.Config).pool]
    vlms += [section(recipe, "decompose", decompose.Config).vlm, section(recipe, "inspect", inspect.Config).inspector.vlm, found.filter.vlm]
    for spec in editors:
        assert create("editors", spec.editor).name
    for vlm in vlms:
        assert create("vlm", vlm).name
