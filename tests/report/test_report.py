"""The page shows what the run holds: every figure, every drop, and nothing that a trace smuggled in."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from markupsafe import escape
from PIL import Image

from editr1.cli import main
from editr1.pictures import encode_small
from editr1.report import embed_json, write_report
from editr1.report.curves import read_points
from editr1.report.figures import percent, read_audits, show
from editr1.report.judges import (
    MAX_TEXT,
    NO_SIGNAL,
    TEXT_BUDGET,
    _shorten,
    choose_tasks,
    confusion_row,
    disagreements,
    longest_that_fits,
    margin_bars,
    read_annotators,
    read_judges,
    reliabilities,
)
from editr1.report.reading import BUDGET, Album, Arrow, Reader, draw_loop
from editr1.schema import Candidate, EditTask, ImageRef, Judgement, Metric, PreferencePair, Reward, Trace
from editr1.stages._evaluation import write_traces
from editr1.store import Run
from small_run import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("report") / "run")


@pytest.fixture(scope="module")
def page(run: Run) -> str:
    return page_of(run)


def page_of(run: Run) -> str:
    path, damage = write_report(run.dir)
    assert damage == []
    return path.read_text(encoding="utf-8")


def arrows_of(run: Run) -> dict[str, Arrow]:
    reader = Reader(run.dir)
    points = read_points(reader).get("edit_rl", {})
    return {arrow.stage: arrow for arrow in draw_loop(reader, reader.records("10_metrics.jsonl", Metric), points)[1]}


def data_of(page: str) -> dict:
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)[1])


def test_the_page_prints_exactly_the_figures_of_the_run(run: Run, page: str) -> None:
    for metric in run.metrics():
        if not metric.name.startswith("stage_seconds/"):
            assert metric.name in page
            assert show(metric.value, metric.name, signed="_gain" in metric.name) in page


def test_the_loop_shows_the_counts_of_every_table(run: Run, page: str) -> None:
    svg = page.partition('<svg class="loop"')[2].partition("</svg>")[0]
    for table in ("02_principles", "03_candidates", "04_traces", "05_inspections"):
        counts = run.counts(table)
        assert f"in {counts.num_in:,}" in svg
        assert f"dropped {counts.num_dropped:,}" in svg


def test_training_arrows_say_what_was_used_and_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", training=False)
    assert arrows_of(run)["sft"].lines == ()
    (run.dir / "06_rrm_sft").mkdir()
    (run.dir / "06_rrm_sft" / "done.json").write_text('{"rows": 5, "steps": 2}')
    arrow = arrows_of(run)["sft"]
    num = run.count("05_inspections")
    assert (arrow.lines, arrow.dropped) == ((f"in {num}", "used 5"), f"left out {num - 5}")


def test_each_annotator_stands_with_its_accuracy_its_confusion_and_its_cost(run: Run, page: str) -> None:
    found = read_annotators(Reader(run.dir))
    assert len(found.accuracies) >= 2
    for row in found.accuracies:
        assert row.accuracy is not None
        assert f"<td>{row.name}</td>" in page
        assert f'<td class="num">{percent(row.accuracy)}</td>' in page
        for category in row.categories:
            assert "".join(f'<td class="num">{cell}</td>' for cell in confusion_row(category)[1:]) in page
    assert {used["name"] for used in found.usage} == {
        member["name"] for member in json.loads((run.dir / "config.json").read_text())["score"]["pool"]
    }


def test_the_page_asks_for_nothing_from_outside(page: str) -> None:
    outside = re.findall(r'(?:src|href)\s*=\s*"(?!#|data:)[^"]*"|url\((?!#)[^)]*\)|@import', page)
    assert outside == []
    assert "default-src 'none'" in page


def test_a_trace_cannot_end_the_script_or_become_markup(page: str) -> None:
    assert "onerror=alert(1)>" not in page.replace("\\u003c", "<").split('id="data">')[0]
    assert page.count("</script>") == 2
    voices = [voice for card in data_of(page)["cards"] for edit in card["edits"] for voice in edit["voices"]]
    assert any("</script>" in voice["text"] for voice in voices)


def test_each_image_travels_once_and_the_page_is_small(page: str) -> None:
    uris = list(data_of(page)["images"].values())
    assert len(uris) == len(set(uris))
    assert all(page.count(uri) == 1 for uri in uris)
    assert len(page) < 10_000_000


def test_every_edit_carries_its_verdicts_and_disagreements(run: Run, page: str) -> None:
    cards = data_of(page)["cards"]
    assert sum(len(card["edits"]) for card in cards) == run.count("03_candidates")
    for edit in (edit for card in cards for edit in card["edits"]):
        assert {voice["role"] for voice in edit["voices"]} <= {"annotator", "judge"}
        assert ("disagreement" in edit["flags"]) == bool(edit["split"])


def reward_of(score: float) -> Reward:
    return Reward(score, 1, 1, traces=(Trace("", "t", Judgement((), score), "m", "p", 0.0, 0),))


def test_agreement_by_margin_has_its_known_answer(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", training=False)
    pairs = [pair for pair in run.read("07_pairs") if pair.label != "same"]
    scores = {pair.winner.id: 6.0 for pair in pairs} | {pair.loser.id: 5.5 for pair in pairs}
    write_traces(run, "oracle", {key: reward_of(score) for key, score in scores.items()})
    (bars,) = margin_bars(pairs, read_judges(Reader(run.dir)))
    # every winner is half a point ahead: all pairs lie in the second bin and agree
    assert dict(bars.rows)["0.5 to 1"] == ((f"100.0 % of {len(pairs)}", 100.0),)
    assert dict(bars.rows)["under 0.5"] == (None,)


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Audited by the real command, so that the page reads what it writes."""
    run = make_run(tmp_path_factory.mktemp("audited") / "run", num_tasks=6, training=False)
    assert main(["audit", "--run", str(run.dir), "--judge", "audit_judges:Nervous", "--threshold", "0.8"]) == 1
    assert main(["audit", "--run", str(run.dir), "--judge", "audit_judges:ByPrinciples", "--perturb"]) == 0
    return run


def test_the_audit_shows_every_law_with_rate_interval_and_threshold(audited: Run) -> None:
    audit = next(audit for audit in read_audits(Reader(audited.dir)) if audit.probes)
    assert audit.record.label == "Nervous"
    laws = {metric.name: metric for metric in audited.metrics() if metric.name.startswith("audit/")}
    assert {f"{probe.figure.name}/Nervous" for probe in audit.probes} == set(laws)
    for probe in audit.probes:
        metric = laws[f"{probe.figure.name}/Nervous"]
        assert (probe.figure.value, probe.figure.goal) == (show(metric.value, metric.name), "at least 80.0 %")
        assert probe.num_broken == metric.n - round(metric.n * (metric.value or 0.0))
    section = page_of(audited).partition('id="audit"')[2].partition("</section>")[0]
    for probe in audit.probes:
        for text in (probe.law, probe.figure.value, probe.figure.interval, *(scores for _, scores in probe.broken)):
            assert str(escape(text)) in section
    assert f"{audit.num_held} of {audit.num_decided} laws" in section
    assert "editr1 audit" in section


def test_the_audit_shows_what_each_damage_moved(audited: Run) -> None:
    audit = next(audit for audit in read_audits(Reader(audited.dir)) if audit.damages)
    shown = {
        f"propagation/{damage}/{figure}": cell[0]
        for damage, cells in audit.damages
        for figure, cell in zip(audit.figures, cells, strict=True)
        if cell is not None
    }
    figures = {metric.name: metric for metric in audit.record.propagation}
    assert shown == {name: show(metric.value, name, signed=name.endswith("_change")) for name, metric in figures.items()}
    assert shown["propagation/drop/verdict_flips"].endswith("%")
    assert not shown["propagation/drop/score_movement"].endswith("%")


def test_what_the_audit_shows_is_not_a_result_too(audited: Run) -> None:
    page = page_of(audited)
    results = page.partition('id="results"')[2].partition("</section>")[0]
    assert "audit/" not in results
    assert "propagation/" not in results


def test_figures_are_printed_so_that_intervals_line_up() -> None:
    assert [show(value, "oracle_score/after") for value in (6.4, 7.01, 0.4123, 12345.0)] == ["6.40", "7.01", "0.41", "1.234e+04"]
    assert show(-0.02, "oracle_score_gain", signed=True) == "−0.02"


def test_every_arrow_of_a_finished_run_tells_what_went_through(run: Run) -> None:
    arrows = arrows_of(run)
    tasks = run.counts("01_tasks")
    assert arrows["tasks"].lines == (f"in {tasks.num_in}", f"out {tasks.num_out}")
    assert arrows["edit-rl"].lines == ("60 iterations",)
    num, missing = len(run.metrics()), sum(metric.value is None for metric in run.metrics())
    assert (arrows["bench"].lines, arrows["bench"].dropped) == ((f"in {num}", f"out {num - missing}"), f"no value {missing}")


def test_forecasts_of_a_judge_stand_beside_what_people_chose(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=40, training=False)
    pairs = [pair for pair in run.read("07_pairs") if pair.label != "same"]
    scores = {}
    for number, pair in enumerate(pairs):  # right on three of four pairs, always by one point
        right = number % 4 != 0
        scores |= {pair.winner.id: 6.0 if right else 5.0, pair.loser.id: 5.0 if right else 6.0}
    write_traces(run, "threefourths", {key: reward_of(score) for key, score in scores.items()})
    (judge,) = reliabilities(pairs, read_judges(Reader(run.dir)))
    share = sum(number % 4 != 0 for number in range(len(pairs))) / len(pairs)
    assert sum(bin_.n for bin_ in judge.bins) == len(pairs)
    assert sum(bin_.n * bin_.observed for bin_ in judge.bins) == pytest.approx(share * len(pairs))
    # sigmoid(slope) = share, and a temperature is 1 / slope
    assert f"temperature {1 / math.log(share / (1 - share)):.2f} points" in judge.summary
    section = page_of(run)
    assert section.count("<circle cx") == len(judge.bins)
    assert judge.summary in section


@pytest.mark.parametrize("gap", [-1.0, 0.0], ids=["the wrong way", "none"])
def test_a_judge_without_signal_has_no_temperature(gap: float) -> None:
    picture = ImageRef("0" * 64)
    pairs, traces = [], {}
    for number in range(30):
        task = EditTask(f"{number}", picture, "redden")
        preferred, other = (Candidate(f"{number}{side}", task.id, picture, "editor", 0) for side in "ab")
        pairs.append(PreferencePair(task, (), preferred, other, "a", "person"))
        for candidate, score in ((preferred, 5.0 + gap), (other, 5.0)):
            traces[candidate.id] = [Trace(candidate.id, "t", Judgement((), score), "m", "p", 0.0, 0)]
    (judge,) = reliabilities(pairs, {"blind": traces})
    assert "no signal" in judge.summary
    assert "temperature" not in judge.summary
    assert NO_SIGNAL > 10  # points: more than any gap


def test_an_empty_run_says_what_is_missing(tmp_path: Path) -> None:
    page = page_of(Run.open(tmp_path / "empty"))
    for missing in (
        "no results yet",
        "no human pairs",
        "logged a curve",
        "no candidates yet",
        "no before/after",
        "No judge was compared",
        "No judge of this run was audited",
    ):
        assert missing in page


def test_a_run_that_stopped_after_candidates_still_has_a_gallery(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=3, training=False)
    for table in ("04_traces", "05_inspections", "07_pairs"):
        (run.dir / table / "counts.json").unlink()
    assert data_of(page_of(run))["cards"][0]["edits"][0]["voices"] == []


def test_tasks_are_drawn_evenly_over_kinds() -> None:
    tasks = [EditTask(f"{kind}{i}", ImageRef("0" * 64), "", kind) for kind in "ab" for i in range(5)]
    assert choose_tasks(tasks, 4) == {"a0", "b0", "a1", "b1"}


def test_a_judge_without_verdicts_disagrees_with_nobody() -> None:
    assert disagreements([[True], []], 1) == []


def test_photographs_become_thumbnails_and_pixel_art_stays(tmp_path: Path) -> None:
    assert encode_small(Image.new("RGB", (72, 72)), 384, 128)[0] == "image/png"
    mime, data = encode_small(Image.effect_noise((2000, 1500), 80).convert("RGB"), 384, 128)
    assert mime == "image/webp"
    assert len(data) < 80_000
    reader, album = Reader(Run.open(tmp_path / "run").dir), Album(budget=10)
    ref = reader.run.images.put(Image.new("RGB", (72, 72)))
    assert album.add(reader, ref) == album.add(reader, ImageRef(ref.digest, "")) == ref.digest[:12]  # galleries name pictures by digest
    assert album.full
    assert BUDGET * 4 / 3 + TEXT_BUDGET < 9_000_000  # a megabyte is left for names, verdicts and curves


def test_many_long_traces_are_cut_alike_until_they_fit() -> None:
    voices = [{"text": "ä" * 5_000, "cut": False} for _ in range(400)] + [{"text": "short", "cut": False}]
    _shorten(voices)
    sizes = [len(voice["text"].encode()) for voice in voices]
    assert TEXT_BUDGET - 2 * len(voices) <= sum(sizes) <= TEXT_BUDGET
    assert [voice["cut"] for voice in voices] == [True] * 400 + [False]
    alone = {"text": "x" * (MAX_TEXT + 1), "cut": False}
    _shorten([alone])
    assert (len(alone["text"]), alone["cut"]) == (MAX_TEXT, True)
    assert longest_that_fits([], 10) == 0
    assert longest_that_fits([3, 4], 7) == 4


def test_embedded_json_survives_line_separators() -> None:
    assert json.loads(embed_json({"a": "<\u2028"})) == {"a": "<\u2028"}
