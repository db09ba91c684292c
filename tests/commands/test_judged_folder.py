"""A folder of one's own, judged: lists of both kinds, principles, names, tables and pages for people, and refusals that help."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import pytest

from bench_files import png
from editr1.bench.own import folder as own_folder
from editr1.cli import main
from editr1.commands.judging import judge_name
from editr1.errors import DataError
from editr1.judge.item import RewardItem
from editr1.schema import Reward, Trace
from fake_endpoint import completion, serve

PRINCIPLES = [{"question": "Is the sky purple?", "category": "follow"}, {"question": "Is the house the same?", "category": "keep"}]


class Shade:
    """The brighter the edit, the better; knows the principles that it was given."""

    def score(self, items: Sequence[RewardItem], seed: int = 0) -> list[Reward]:
        return [self._one(item) for item in items]

    def _one(self, item: RewardItem) -> Reward:
        value = item.edited.convert("RGB").getpixel((0, 0))[0] / 30
        trace = Trace(item.id, f"<b>bright {value:.1f}</b>", None, "m", "p", 0.0, 0, 1)  # type: ignore[arg-type]
        return Reward(value, 1, 1, (1.0, 0.0) if item.principles else (), None, item.principles or (), scores=(value,), traces=(trace,))


def build_judge() -> Shade:
    return Shade()


def make_folder(root: Path, kind: str) -> Path:
    root.mkdir()
    for name, shade in (("s", 0), ("dark", 30), ("bright", 240)):
        (root / f"{name}.png").write_bytes(png(shade))
    rows = [
        {"source": "s.png", "edited": f"{name}.png", "instruction": f"Make it {name}, <now>", "category": "tone", "principles": PRINCIPLES}
        for name in ("bright", "dark")
    ]
    if kind == "jsonl":
        (root / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        return root
    with (root / "edits.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows([{**row, "principles": json.dumps(row["principles"])} for row in rows])
    return root


@pytest.mark.parametrize("kind", ["jsonl", "csv"])
def test_every_edit_by_name_with_its_verdicts(tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str) -> None:
    folder, run = make_folder(tmp_path / "edits", kind), tmp_path / "run"
    argv = ["score-folder", str(folder), "--run", str(run), "--judge", f"{__name__}:build_judge", "--label", "shade"]
    assert main(argv) == 0
    assert "folder/mean" in capsys.readouterr().out
    with (run / "bench_folder_shade.edits.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["edit"], row["score"]) for row in rows] == [("bright.png", "8"), ("dark.png", "1")]
    said = [(verdict["question"], verdict["yes"]) for verdict in json.loads(rows[0]["verdicts"])]
    assert said == [(PRINCIPLES[0]["question"], 1.0), (PRINCIPLES[1]["question"], 0.0)]
    assert rows[0]["text"] == "<b>bright 8.0</b>"
    typed = pd.read_parquet(run / "bench_folder_shade.edits.parquet")
    assert list(typed.columns) == list(rows[0])
    assert [(row.edit, row.score) for row in typed.itertuples()] == [("bright.png", 8.0), ("dark.png", 1.0)]
    assert typed.unscored.isna().all()
    assert [(verdict["question"], verdict["yes"]) for verdict in typed.verdicts[0]] == said
    page = (run / "bench_folder_shade.edits.html").read_text()
    assert page.index("Worst") < page.index("dark.png") < page.index("Best") < page.index("bright.png")
    assert page.count("data:image/jpeg;base64,") == page.count('alt="before"') + page.count('alt="after"') == 4
    assert 'content="width=device-width' in page  # or a phone shows it as small as on a desk
    assert "Make it dark, &lt;now&gt;" in page
    assert "<b>bright" not in page  # what a model says is text and no markup
    outcomes = (run / "bench_folder_shade.outcomes.jsonl").read_text().splitlines()
    assert [json.loads(line)["key"] for line in outcomes] == ["bright.png", "dark.png"]


def test_another_judge_in_the_same_table_is_told_to_take_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, run = make_folder(tmp_path / "edits", "csv"), str(tmp_path / "run")
    argv = ["score-folder", str(folder), "--run", run, "--label", "x", "--judge"]
    assert main([*argv, f"{__name__}:build_judge"]) == 0
    capsys.readouterr()
    assert main([*argv, f"{__name__}:Shade"]) == 2
    err = capsys.readouterr().err
    assert "--label NAME" in err
    assert "--accept" not in err


def test_names_of_judges_and_of_edits(tmp_path: Path) -> None:
    assert [judge_name(id) for id in ("rrm", "my_judge:build", "a.b:build", "a.b:Sharp")] == ["rrm", "my_judge", "b", "Sharp"]
    folder = make_folder(tmp_path / "edits", "jsonl")
    (folder / "edits.jsonl").write_text("".join(json.dumps(row) + "\n" for row in (
        {"source": "s.png", "edited": "dark.png", "instruction": "one"},
        {"source": "s.png", "edited": "dark.png", "instruction": "two"},
        {"source": "s.png", "edited": "bright.png", "instruction": "one", "id": "mine"},
    )))  # fmt: skip
    assert [edit.key for edit in own_folder.build(folder).edits()] == ["dark.png one", "dark.png two", "mine"]
    (folder / "edits.csv").write_text("source,edited,instruction\n")
    with pytest.raises(DataError, match="keep one"):
        own_folder.build(folder)
    (folder / "edits.jsonl").unlink()
    (folder / "edits.csv").write_text('source,edited,instruction,principles\ns.png,dark.png,x,"[{}]"\n')
    with pytest.raises(DataError, match="principles are unusable"):
        own_folder.build(folder)


def test_another_model_writes_the_principles_that_edits_lack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make_folder(tmp_path / "edits", "jsonl")
    rows = [json.loads(line) for line in (folder / "edits.jsonl").read_text().splitlines()]
    (folder / "edits.jsonl").write_text("".join(json.dumps({k: v for k, v in row.items() if k != "principles"}) + "\n" for row in rows))
    with serve(lambda body: completion("no principles, no verdicts")) as endpoint:
        argv = [
            "score-folder",
            str(folder),
            "--run",
            str(tmp_path / "run"),
            "--judge",
            "rrm",
            "--model",
            "judge",
            "--base-url",
            endpoint.url,
        ]
        assert main([*argv, "--decomposer", "writer"]) == 2  # nothing is scored
        assert {body["model"] for body in endpoint.bodies} == {"writer"}
    assert "2 of 2 edits are unscored" in capsys.readouterr().err
    assert (tmp_path / "run" / "bench_folder_rrm.edits.csv").is_file()
