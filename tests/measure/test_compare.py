"""Paired comparison of two judges or editors from outcome rows."""

from __future__ import annotations

import dataclasses
import json
import random
from pathlib import Path

import pytest

from editr1.bench.base import Outcome
from editr1.cli import main
from editr1.errors import DataError
from editr1.measure.compare import compare, read_outcomes
from editr1.schema import to_json


def scores(shift: float, seed: int = 0, n: int = 60) -> list[Outcome]:
    rng = random.Random(seed)
    base = [rng.uniform(2, 8) for _ in range(n)]
    return [Outcome(f"k{i}", f"s{i // 2}", ("add", "remove")[i % 2], value + shift) for i, value in enumerate(base)]


def by_protocol(found) -> dict:
    return {metric.protocol: metric for metric in found.metrics}


def test_a_constant_shift_is_found_whatever_the_spread_of_the_samples() -> None:
    found = by_protocol(compare(scores(0.0), scores(0.3)))
    for protocol in ("compare/score/micro", "compare/score/macro2", "compare/score/category/add"):
        assert found[protocol].value == pytest.approx(0.3)
        assert found[protocol].num_clusters >= 30
        assert found[protocol].p_value < 0.01
        assert found[protocol].holds
    assert found["compare/score/gsb"].value == 1.0
    assert found["compare/score/gsb"].p_value < 0.01


def test_a_macro_mean_learns_nothing_from_a_category_without_a_difference() -> None:
    same, wins = [Outcome(f"s{i}", f"s{i}", "same", 1.0, "credit") for i in range(8)], credits_of([1.0] * 4)
    rows = [[*same, *(dataclasses.replace(row, category="moved") for row in side)] for side in (credits_of([0.0] * 4), wins)]
    found = by_protocol(compare(*rows))
    assert found["compare/credit/micro"].p_value == found["compare/credit/mcnemar"].p_value == 0.125  # 2 / 2^4
    assert found["compare/credit/macro2"].p_value == 0.125


def test_on_few_samples_the_p_is_mcnemars_or_none() -> None:
    wins = by_protocol(compare(credits_of([0.0, 0.0, 0.0, 1.0]), credits_of([1.0] * 4)))
    assert wins["compare/credit/micro"].p_value is None
    assert wins["compare/credit/mcnemar"].p_value == 0.25
    clear = by_protocol(compare(credits_of([0.0] * 7 + [1.0]), credits_of([1.0] * 7 + [0.0])))
    assert clear["compare/credit/micro"].p_value == pytest.approx(clear["compare/credit/mcnemar"].p_value)
    one_source = [Outcome(f"k{i}", "s", "", 0.0, "credit") for i in range(40)]
    other = [dataclasses.replace(row, value=1.0) for row in one_source]
    assert all(metric.p_value is None for metric in compare(one_source, other).metrics)


def test_a_change_below_the_noise_floor_is_marked_however_significant() -> None:
    metric = by_protocol(compare(scores(0.0), scores(0.05)))["compare/score/micro"]
    assert metric.p_value < 0.01
    assert metric.holds is False


def test_the_noise_floor_can_be_measured_and_marks_categories_and_samples(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = scores(0.0, n=4), scores(0.3, n=4)
    b[1] = Outcome("k1", "s0", "remove", None)
    paths = [tmp_path / "a", tmp_path / "b"]
    for path, rows in zip(paths, (a, b), strict=True):
        path.write_text("".join(to_json(row) + "\n" for row in rows))
    table = tmp_path / "samples.csv"
    assert main(["compare", *map(str, paths), "--noise-floor", "0.5", "--samples", str(table)]) == 0
    out = capsys.readouterr().out
    assert "compare/score/micro: +0.300 is below the noise floor (a change of at least 0.5" in out
    assert "compare/score/category/add: +0.300 is below the noise floor" in out
    lines = table.read_text().splitlines()
    assert len(lines) == 5
    assert lines[1].endswith(",0.3,below noise floor")
    assert lines[2].endswith(",,,unscored")
    assert main(["compare", *map(str, paths), "--noise-floor", "-1"]) == 2


def test_the_last_bit_of_a_mean_is_no_difference() -> None:
    a, b = ([Outcome(str(i), str(i), "", value) for i in range(8)] for value in ((0.1 + 0.2 + 0.3) / 3, (0.3 + 0.2 + 0.1) / 3))
    found = compare(a, b)
    assert [(metric.value, metric.p_value) for metric in found.metrics] == [(0.0, 1.0), (0.0, 1.0)]  # the mean and GSB
    assert not found.disagreements
    at_the_floor = compare([Outcome("k", "k", "", 7.2)], [Outcome("k", "k", "", 7.3)], noise_floor=0.1)
    assert at_the_floor.metrics[0].holds


def test_nothing_differs_from_itself() -> None:
    found = compare(scores(0.0), scores(0.0))
    assert found.disagreements == []
    assert by_protocol(found)["compare/score/micro"].p_value == 1.0
    assert by_protocol(found)["compare/score/micro"].low is None


def credits_of(values: list[float | None]) -> list[Outcome]:
    return [Outcome(f"k{i}", f"s{i}", "", value, "credit") for i, value in enumerate(values)]


def test_credits_known_answer() -> None:
    # 139 / 161 discordant pairs: p = .225
    a = credits_of([1.0] * 139 + [0.0] * 161 + [1.0] * 100)
    b = credits_of([0.0] * 139 + [1.0] * 161 + [1.0] * 100)
    found = by_protocol(compare(a, b))
    assert found["compare/credit/mcnemar"].p_value == pytest.approx(0.225, abs=5e-4)
    assert found["compare/credit/mcnemar"].value == pytest.approx(161 / 300)
    assert found["compare/credit/micro"].value == pytest.approx(22 / 400)
    assert found["compare/credit/agreement"].value == 0.25


def test_silence_is_half_a_credit_and_is_listed_last() -> None:
    found = compare(credits_of([1.0, 1.0, None]), credits_of([0.0, None, None]))
    metric = by_protocol(found)["compare/credit/micro"]
    assert metric.value == pytest.approx((-1.0 - 0.5 + 0.0) / 3)
    assert metric.num_unscored == 2
    assert [key for key, _, _ in found.disagreements] == ["k0", "k1"]


def test_samples_of_one_side_only_are_counted() -> None:
    found = compare(scores(0.0)[:40], scores(0.1)[10:])
    assert (found.num_only_a, found.num_only_b, by_protocol(found)["compare/score/micro"].n) == (10, 20, 30)
    with pytest.raises(DataError, match="no sample in common"):
        compare(scores(0.0)[:5], scores(0.0)[5:])
    with pytest.raises(DataError, match="cannot be compared"):
        compare(scores(0.0), credits_of([1.0, 0.0]))


def write(path: Path, rows: list[Outcome]) -> Path:
    path.write_text("".join(to_json(row) + "\n" for row in rows))
    return path


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a, b = write(tmp_path / "a.jsonl", scores(0.0)), write(tmp_path / "b.jsonl", scores(0.05))
    assert main(["compare", str(a), str(b), "--show", "2"]) == 0
    out = capsys.readouterr().out
    assert "below the noise floor" in out
    assert "60 samples differ" in out
    assert main(["compare", str(a), str(b), "--category", "add", "--json"]) == 0
    assert {json.loads(line)["n"] for line in capsys.readouterr().out.splitlines()} == {30}


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", "no outcome rows"), ("", "no row of category"), (to_json(scores(0.0)[0]) + "\n" + to_json(scores(0.0)[0]), "more than once")],
)
def test_other_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        read_outcomes(path)
