"""Items, queue, votes, export and agreement, without a browser."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from editr1.annotate.export import export_pairs, import_votes, write_csv
from editr1.annotate.items import Item, Plan, item_id, plan_items
from editr1.annotate.queue import Overlap, Queue
from editr1.annotate.results import agreement, gsb, summarise
from editr1.annotate.server import Desk, build_app
from editr1.annotate.votes import DATABASE, Answer, Vote, VoteStore
from editr1.cli import main
from editr1.errors import DataError
from editr1.schema import Candidate, EditTask, ImageRef
from editr1.serve.listen import PatientProtocol
from editr1.store import Run
from small_run import make_run


@pytest.fixture(scope="module")
def shared_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(tmp_path_factory.mktemp("study") / "run", training=False)


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "run", num_tasks=6, training=False)


def items_of(number: int, gold: bool = False) -> list[Item]:
    def candidate(name: str) -> Candidate:
        return Candidate(name, "task", ImageRef("0" * 64), "editor", 0)

    task = EditTask("task", ImageRef("0" * 64), "make it red")
    return [Item(f"item{i}", task, (), candidate(f"a{i}"), candidate(f"b{i}"), "a" if gold else None) for i in range(number)]


def vote(item: str, annotator: str, answer: Answer = "a", swapped: bool = False) -> Vote:
    return Vote(item, annotator, answer, swapped, 1.0)


def test_the_same_plan_gives_the_same_items(shared_run: Run) -> None:
    plan = Plan(pairs_per_task=2)
    assert plan_items(shared_run, plan) == plan_items(shared_run, plan)
    for item in plan_items(shared_run, plan):
        assert item.a.task_id == item.b.task_id == item.task.id
        assert item.a.image.digest != item.b.image.digest


def test_gsb_compares_the_two_editors_that_were_named(shared_run: Run) -> None:
    items = plan_items(shared_run, Plan(editors=("steady", "sloppy")))
    assert {(item.a.editor, item.b.editor) for item in items} == {("steady", "sloppy")}
    with pytest.raises(DataError, match="its editors are: sloppy, steady"):
        plan_items(shared_run, Plan(editors=("steady", "nobody")))


def test_control_questions_are_spread_and_not_asked_as_real_ones(shared_run: Run, tmp_path: Path) -> None:
    first = plan_items(shared_run, Plan())[0]
    file = tmp_path / "gold.csv"
    file.write_text(f"a,b,label\n{first.a.id},{first.b.id},b\n")
    items = plan_items(shared_run, Plan(gold=file, gold_every=4))
    assert [item.gold for item in items].count("b") == 1
    assert items[3].gold == "b"
    assert len({item.id for item in items}) == len(items)


def test_one_answer_an_item_unless_overlap_asks_for_more() -> None:
    queue = Queue(items_of(3), [], Overlap(0.0))
    assert [item.id for item in queue.next("ada", 2)] == ["item0", "item1"]
    assert [item.id for item in queue.next("bob", 2)] == ["item2"]
    shared = Queue(items_of(3), [], Overlap(1.0, raters=2))
    assert [item.id for item in shared.next("ada", 3)] == [item.id for item in shared.next("bob", 3)]
    assert shared.next("eve", 3) == []


def test_control_questions_go_to_everybody() -> None:
    queue = Queue(items_of(1, gold=True), [], Overlap(0.0))
    assert all(queue.next(name, 1) for name in ("ada", "bob", "eve"))


def test_a_lease_ends_and_a_skip_asks_somebody_else() -> None:
    now = [0.0]
    queue = Queue(items_of(1), [], Overlap(0.0), clock=lambda: now[0])
    assert queue.next("ada", 1)
    assert queue.next("bob", 1) == []
    now[0] = 601.0
    assert queue.next("bob", 1)
    queue.answered(vote("item0", "bob", "skip"))
    assert queue.next("bob", 1) == []
    assert queue.next("ada", 1)


def test_a_queue_rebuilt_from_the_votes_continues(tmp_path: Path) -> None:
    store = VoteStore(tmp_path / DATABASE)
    for number in range(2):
        store.put(vote(f"item{number}", "ada"))
    assert [item.id for item in Queue(items_of(4), store.all(), Overlap(0.0)).next("ada", 1)] == ["item2"]
    assert store.undo("ada") is not None
    assert [item.id for item in Queue(items_of(4), store.all(), Overlap(0.0)).next("ada", 1)] == ["item1"]


def test_answers_are_on_disk_for_another_connection_at_once(tmp_path: Path) -> None:
    writer, reader = VoteStore(tmp_path / DATABASE), VoteStore(tmp_path / DATABASE)
    writer.put(vote("item0", "ada"))
    assert [found.item for found in reader.all()] == ["item0"]
    writer.put(vote("item0", "ada", "b"))
    assert [found.answer for found in reader.all()] == ["b"]


def test_ten_thousand_pairs_are_handed_out_quickly(tmp_path: Path) -> None:
    queue = Queue(items_of(10_000), [vote(f"item{i}", "bob") for i in range(9_000)], Overlap(0.1))
    queue.next("ada", 4)
    start = time.perf_counter()
    for _ in range(10):
        item = queue.next("ada", 4)[0]
        queue.answered(vote(item.id, "ada"))
        queue.remaining("ada")
    assert (time.perf_counter() - start) / 10 < 0.1


def test_export_makes_07_pairs_and_what_was_imported_comes_out_again(run: Run, tmp_path: Path) -> None:
    items = plan_items(run, Plan())
    store = VoteStore(run.dir / DATABASE)
    answers: tuple[Answer, ...] = ("a", "b", "same", "skip")
    for item, answer in zip(items, answers, strict=False):
        store.put(vote(item.id, "ada", answer))
    for path in (run.dir / "07_pairs").iterdir():
        path.unlink()
    (run.dir / "07_pairs").rmdir()
    path, counts = export_pairs(run, items, store.all())
    assert (counts.num_in, counts.num_dropped) == (3, 0)
    pairs = list(run.read("07_pairs"))
    assert [(pair.a.id, pair.b.id, pair.label) for pair in pairs] == [
        (item.a.id, item.b.id, label) for item, label in zip(items, ("a", "b", "same"), strict=False)
    ]
    copy = VoteStore(tmp_path / "copy.sqlite")
    assert import_votes(copy, items, path) == {"imported": 3}
    assert [(v.item, v.answer) for v in copy.all()] == [(v.item, v.answer) for v in store.all() if v.answer != "skip"]


def test_votes_in_the_other_order_are_turned_and_strange_rows_counted(tmp_path: Path) -> None:
    items = [Item(item_id("x", "y"), *_fields("x", "y"))]
    file = tmp_path / "votes.csv"
    file.write_text("a,b,label,annotator\ny,x,a,ada\nx,z,a,ada\nx,y,maybe,bob\n")
    store = VoteStore(tmp_path / DATABASE)
    assert import_votes(store, items, file) == {"imported": 1, "unknown_pair": 1, "bad_label": 1}
    assert [v.answer for v in store.all()] == ["b"]


def _fields(a: str, b: str) -> tuple:
    item = items_of(1)[0]
    return item.task, (), Candidate(a, "task", ImageRef("0" * 64), "e", 0), Candidate(b, "task", ImageRef("0" * 64), "e", 0)


def test_a_spreadsheet_formula_stays_text(run: Run) -> None:
    item = plan_items(run, Plan())[0]
    path, _ = write_csv(run, [item], [vote(item.id, "=HYPERLINK(1)")])
    assert "'=HYPERLINK(1)" in path.read_text()


def test_agreement_and_gsb_have_their_known_answers() -> None:
    votes = [vote(f"item{i}", "ada", "a" if i < 5 else "b") for i in range(10)] + [
        vote(f"item{i}", "bob", "a" if i < 5 else "b") for i in range(10)
    ]
    assert agreement(votes)["pairs"] == [{"first": "ada", "second": "bob", "n": 10, "agree": 1.0, "kappa": 1.0}]
    assert agreement(votes)["alpha"] == 1.0
    # five items for a, five for b: good = bad
    study = gsb(votes, ("before", "after"))
    assert study is not None
    assert (study["good"], study["bad"], study["value"]) == (5, 5, 0.0)
    assert agreement([])["alpha"] is None


def test_left_share_and_control_answers_are_reported() -> None:
    items = [*items_of(1), Item("gold", *_fields("x", "y"), gold="b")]
    votes = [vote("item0", "ada", "b", swapped=True), vote("gold", "ada", "a", swapped=True)]
    person = summarise(items, votes, None)["annotators"][0]
    # b on the left was chosen once (swapped), a on the right once: one of two answers was the left one
    assert person["left_share"] == 0.5
    assert (person["gold_right"], person["gold_asked"]) == (0, 1)


@pytest.fixture
def desk(run: Run) -> Desk:
    return Desk.open(run, Plan(), Overlap(0.0))


def test_strangers_are_refused(desk: Desk) -> None:
    client = TestClient(build_app(desk, token="secret", loopback=False), follow_redirects=False)
    assert client.get("/").status_code == 401
    assert client.get("/", params={"token": "wrong"}).status_code == 401
    assert client.get("/api/results", params={"token": "secret"}).status_code == 401
    opened = client.get("/", params={"token": "secret"})
    assert opened.status_code == 303
    assert "httponly" in opened.headers["set-cookie"].lower()
    assert client.get("/").status_code == 200
    assert client.get("/api/next", params={"annotator": "ada"}).status_code == 200


def test_a_foreign_host_name_is_refused_on_loopback(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://127.0.0.1:8765")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_only_the_pictures_of_the_study_can_be_fetched(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    item = client.get("/api/next", params={"annotator": "ada"}).json()["items"][0]
    assert client.get(item["left"]).headers["content-type"].startswith("image/")
    for path in ("/image/" + "0" * 64, "/image/..%2f..%2fenv.json", "/image/%2Fetc%2Fpasswd", "/../env.json"):
        assert client.get(path).status_code in (404, 422)


def test_bad_answers_are_refused_and_nothing_is_stored(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    good = {"item": desk.items[0].id, "annotator": "ada", "answer": "left", "seconds": 1.0}
    bad = [good | {"item": "nope"}, good | {"annotator": " "}, good | {"answer": "a"}, good | {"annotator": "x" * 100}]
    for body in bad:
        assert client.post("/api/answer", json=body).status_code in (404, 422)
    assert client.post("/api/answer", content=json.dumps(good), headers={"content-type": "text/plain"}).status_code == 422
    assert client.post("/api/answer", content=b"x" * 200_000).status_code == 413
    assert client.post("/api/undo", json={"annotator": "ada"}).status_code == 404
    assert desk.votes.all() == []
    assert client.post("/api/answer", json=good).status_code == 200
    assert len(desk.votes.all()) == 1


def test_other_hosts_need_a_token(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(run.dir), "--host", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err


def test_the_page_is_served_with_a_limit_on_slow_headers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    options: dict[str, Any] = {}
    monkeypatch.setattr(uvicorn, "run", lambda app, **given: options.update(given))
    assert main(["annotate", str(run.dir)]) == 0
    assert options["host"] == "127.0.0.1"
    assert issubclass(options["http"], PatientProtocol)


def test_export_without_answers_says_what_to_do(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(run.dir), "--export"]) == 2
    assert "label some pairs first" in capsys.readouterr().err
