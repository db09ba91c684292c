"""The how-to pages say what is true: their commands parse, their code compiles, their links lead somewhere."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from editr1.cli import build_parser, main
from editr1.serve.messages import RewardRequest, RewardResponse

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "how_to").glob("*.md"))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.S | re.M)


def blocks(page: Path, language: str) -> list[str]:
    return [text for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == language]


def page_ids(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_command_is_one_that_exists(page: Path) -> None:
    for block in blocks(page, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "editr1":
                build_parser().parse_args(words[1:])


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_python_block_compiles(page: Path) -> None:
    for block in blocks(page, "python"):
        compile(block, str(page), "exec")


@pytest.mark.parametrize("page", PAGES, ids=page_ids)
def test_every_link_leads_to_a_file(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_json_of_the_reward_page_is_the_contract() -> None:
    request, response = (json.loads(block) for block in blocks(ROOT / "docs" / "how_to" / "use_the_reward.md", "json"))
    RewardRequest.model_validate(request)
    RewardResponse.model_validate(response)


def test_the_report_command_does_what_its_page_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from small_run import make_run

    run = make_run(tmp_path / "run", num_tasks=3, training=False)
    assert main(["report", str(run.dir)]) == 0
    assert capsys.readouterr().out.strip() == str(run.dir / "report.html")
