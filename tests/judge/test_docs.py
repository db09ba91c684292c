"""The how-to of judging is true: its Python runs, its tables name what exists."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from editr1.audit.probes import PROBES
from editr1.judge.parse import render
from editr1.judge.prompts import labels, score_prompt_ids, score_traits
from editr1.schema import Judgement
from scripted_vlm import ScriptedVLM

TEXT = (Path(__file__).parents[2] / "docs" / "how_to" / "judge.md").read_text("utf-8")


def test_the_python_of_the_page_runs(capsys):
    (code,) = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
    vlm = ScriptedVLM(lambda request: render(Judgement((True, False), 6.5), labels(request.context.principles)))
    exec(code, {"vlm": vlm, "source": Image.new("RGB", (8, 8)), "edited": Image.new("RGB", (8, 8))})
    assert capsys.readouterr().out == "6.5 (1.0, 0.0)\n"


def test_every_prompt_and_every_probe_is_in_its_table():
    rows = {name: row for row in TEXT.splitlines() if row.startswith("| `") for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}
    assert {*score_prompt_ids(), *(probe.name for probe in PROBES)} == rows.keys()
    for prompt_id in score_prompt_ids():
        if not prompt_id.startswith("compact"):
            assert score_traits(prompt_id).shows_principles == (rows[prompt_id].split("|")[2].strip() == "yes")
