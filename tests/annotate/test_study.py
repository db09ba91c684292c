"""Items, queue, votes, export and agreement, without a browser."""

from __future__ import annotations

import dataclasses
import io
import json
import sqlite3
from pathlib import Path

import pytest
import uvicorn
from PIL import Image, ImageCms, PngImagePlugin
from starlette.testclient import TestClient

from editr1.annotate.items import Item, Plan, item_id, plan_items
from editr1.annotate.queue import Overlap, Queue, is_swapped
from editr1.annotate.results import agreement, export, export_pairs, gsb, summarise, write_csv
from editr1.annotate.server import AnswerBody, Desk, build_app
from editr1.annotate.votes import ADJUDICATOR, DATABASE, Answer, BusyStoreError, Vote, VoteStore, import_votes
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


def vote(item: str, annotator: str, answer: Answer = "a", swapped: bool = False, study: str = "pairs") -> Vote:
    return Vote(item, annotator, answer, swapped, 1.0, study=study)


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
    shared = Queue(items_of(4), [vote("item3", "ada"), vote("item3", "bob")], Overlap(1.0, raters=2))
    assert [item.id for item in shared.next("ada", 3)] == [item.id for item in shared.next("bob", 3)]
    assert shared.next("eve", 3) == []


def test_control_questions_go_to_everybody() -> None:
    queue = Queue(items_of(1, gold=True), [], Overlap(0.0))
    assert all(queue.next(name, 1) for name in ("ada", "bob", "eve"))


def test_a_lease_ends_and_a_skip_asks_somebody_else() -> None:
    now = [0.0]
    queue = Queue(items_of(2), [vote("item1", "ada")], Overlap(0.0), clock=lambda: now[0])
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
    assert store.undo("ada", "pairs", {"item0", "item1"}) is not None
    assert [item.id for item in Queue(items_of(4), store.all(), Overlap(0.0)).next("ada", 1)] == ["item1"]


def test_answers_are_on_disk_for_another_connection_at_once(tmp_path: Path) -> None:
    writer, reader = VoteStore(tmp_path / DATABASE), VoteStore(tmp_path / DATABASE)
    writer.put(vote("item0", "ada"))
    assert [found.item for found in reader.all()] == ["item0"]
    writer.put(vote("item0", "ada", "b"))
    assert [found.answer for found in reader.all()] == ["b"]


def test_export_makes_07_pairs_and_what_was_imported_comes_out_again(run: Run, tmp_path: Path) -> None:
    items = plan_items(run, Plan())
    store = VoteStore(run.dir / DATABASE)
    answers: tuple[Answer, ...] = ("a", "b", "same", "skip")
    for item, answer in zip(items, answers, strict=False):
        store.put(vote(item.id, "ada", answer))
    for path in (run.dir / "07_pairs").iterdir():
        path.unlink()
    (run.dir / "07_pairs").rmdir()
    exported = export(run, store.all())
    assert (len(exported.rows), exported.num_votes, exported.left_out) == (3, 4, {"skipped": 1})
    path, counts = export_pairs(run, exported)
    assert (counts.num_in, counts.num_dropped) == (3, 0)
    pairs = list(run.read("07_pairs"))
    assert [(pair.a.id, pair.b.id, pair.label) for pair in pairs] == [
        (item.a.id, item.b.id, label) for item, label in zip(items, ("a", "b", "same"), strict=False)
    ]
    copy = VoteStore(tmp_path / "copy.sqlite")
    assert import_votes(copy, items, path) == {"imported": 3}
    before = [v for v in store.all() if v.answer != "skip"]
    assert copy.all() == [dataclasses.replace(v, imported=True) for v in before]
    assert import_votes(store, items, path) == {"already_there": 3}
    assert [v for v in store.all() if v.answer != "skip"] == before


def test_votes_in_the_other_order_are_turned_and_strange_rows_counted(tmp_path: Path) -> None:
    items = [Item(item_id("x", "y"), *_fields("x", "y"))]
    file = tmp_path / "votes.csv"
    file.write_text("a,b,label,annotator\ny,x,a,ada\nx,z,a,ada\nx,y,maybe,bob\n")
    store = VoteStore(tmp_path / DATABASE)
    assert import_votes(store, items, file) == {"imported": 1, "unknown_pair": 1, "bad_label": 1}
    assert [v.answer for v in store.all()] == ["b"]


@pytest.mark.parametrize(
    ("cells", "found"),
    [
        ({"label": " A ", "swapped": True, "annotator": 3.0, "seconds": None}, ("a", True, "3", 0.0)),
        ({"label": "same", "swapped": "False", "annotator": None, "seconds": "1.5"}, ("same", False, "imported", 1.5)),
        ({"label": "b", "swapped": 1.0, "annotator": "ada", "seconds": float("nan")}, ("b", True, "ada", 0.0)),
        ({"label": "a", "swapped": "yes"}, "bad_swapped"),
        ({"label": "a", "seconds": "inf"}, "bad_seconds"),
        ({"label": "a", "annotator": {"name": "ada"}}, "bad_name"),
        ({"label": "a", "annotator": "x" * 61}, "bad_name"),
        ({"lable": "a"}, "did you mean 'lable'"),
    ],
)
def test_a_vote_is_read_as_programs_write_it_or_refused_by_reason(tmp_path: Path, cells: dict[str, object], found: object) -> None:
    items = [Item(item_id("x", "y"), *_fields("x", "y"))]
    (tmp_path / "votes.jsonl").write_text(json.dumps({"a": "x", "b": "y"} | cells) + "\n")
    store = VoteStore(tmp_path / DATABASE)
    if isinstance(found, str):
        with pytest.raises(DataError, match=found):
            import_votes(store, items, tmp_path / "votes.jsonl")
        assert store.all() == []
    else:
        import_votes(store, items, tmp_path / "votes.jsonl")
        assert [(v.answer, v.swapped, v.annotator, v.seconds) for v in store.all()] == [found]


def test_a_control_question_has_one_answer(shared_run: Run, tmp_path: Path) -> None:
    item = plan_items(shared_run, Plan())[0]
    (tmp_path / "gold.csv").write_text(f"a,b,label\n{item.a.id},{item.b.id},A\n{item.b.id},{item.a.id},b\n")
    assert sum(question.gold is not None for question in plan_items(shared_run, Plan(gold=tmp_path / "gold.csv"))) == 1
    (tmp_path / "gold.csv").write_text(f"a,b,label\n{item.a.id},{item.b.id},a\n{item.b.id},{item.a.id},a\n")
    with pytest.raises(DataError, match="line 3 gives another answer"):
        plan_items(shared_run, Plan(gold=tmp_path / "gold.csv"))


def _fields(a: str, b: str) -> tuple:
    item = items_of(1)[0]
    return item.task, (), Candidate(a, "task", ImageRef("0" * 64), "e", 0), Candidate(b, "task", ImageRef("0" * 64), "e", 0)


def test_a_spreadsheet_formula_stays_text(run: Run) -> None:
    item = plan_items(run, Plan())[0]
    names = ["=HYPERLINK(1)", "'=quoted", "'plain"]
    path = write_csv(run, export(run, [vote(item.id, name) for name in names]))
    assert "\n'=HYPERLINK(1)" not in path.read_text()
    assert ",'=HYPERLINK(1)," in path.read_text()
    store = VoteStore(run.dir / "copy.sqlite")
    import_votes(store, [item], path)
    assert [v.annotator for v in store.all()] == names  # nobody becomes two people on the way out and in


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
    assert client.post("/api/next", json={"annotator": "ada"}).status_code == 200


def test_a_key_that_no_cookie_can_carry_is_no_key(desk: Desk, run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    client = TestClient(build_app(desk), base_url="http://127.0.0.1", follow_redirects=False)
    for key in ("token", "owner"):
        opened = client.get("/", params={key: "\u20ac"})
        assert (opened.status_code, "set-cookie" in opened.headers) == (303, False)
    for command in (["annotate", str(run.dir)], ["serve", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]):
        for token in ("\u043f\u0430\u0440\u043e\u043b\u044c", "two words"):
            assert main([*command, "--token", token]) == 2
            assert "--token holds" in capsys.readouterr().err


def test_a_foreign_host_name_is_refused_on_loopback(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://127.0.0.1:8765")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400


def test_only_the_pictures_of_the_study_can_be_fetched(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    item = client.post("/api/next", json={"annotator": "ada"}).json()["items"][0]
    assert client.get(item["left"]).headers["content-type"].startswith("image/")
    for path in ("/image/" + "0" * 64, "/image/..%2f..%2fenv.json", "/image/%2Fetc%2Fpasswd", "/../env.json"):
        assert client.get(path).status_code in (404, 422)


def test_bad_answers_are_refused_and_nothing_is_stored(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    good = {"item": desk.items[0].id, "annotator": "ada", "answer": "left", "seconds": 1.0}
    bad = [good | {"item": "nope"}, good | {"annotator": " "}, good | {"answer": "a"}, good | {"annotator": "x" * 100}]
    names = ("a\0b", "a\nb", "a\u202eb", "\u200b", " Adjudication", "\uff41djudication", "\ud800")
    bad += [good | {"annotator": name} for name in names] + [good | {"seconds": value} for value in (float("nan"), float("inf"), "soon")]
    for body in bad:
        answer = client.post("/api/answer", content=json.dumps(body), headers={"content-type": "application/json"})
        assert answer.status_code in (404, 422)
        assert list(answer.json()) == ["error"]
    assert client.post("/api/answer", content=json.dumps(good), headers={"content-type": "text/plain"}).status_code == 422
    assert client.post("/api/answer", content=b"x" * 200_000).status_code == 413
    assert client.post("/api/undo", json={"annotator": "ada"}).status_code == 404
    assert desk.votes.all() == []
    assert client.post("/api/answer", json=good).status_code == 200
    assert len(desk.votes.all()) == 1


def test_a_request_that_is_sent_twice_takes_back_one_answer(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    for item in desk.items[:3]:
        reply = client.post("/api/answer", json={"item": item.id, "annotator": "ada", "answer": "left", "seconds": 1.0}).json()
    assert reply["last"] == desk.items[2].id
    for _ in range(3):  # its answer was lost on the way
        reply = client.post("/api/undo", json={"annotator": "ada", "item": desk.items[2].id}).json()
        assert (reply["items"][0]["id"], reply["last"]) == (desk.items[2].id, desk.items[1].id)
    assert {vote.item for vote in desk.votes.all()} == {item.id for item in desk.items[:2]}
    assert client.post("/api/undo", json={"annotator": "ada", "item": "nope"}).status_code == 404
    assert client.post("/api/undo", json={"annotator": "bob", "item": desk.items[0].id}).status_code == 200  # shown; it is not bob's
    assert len(desk.votes.all()) == 2
    assert client.post("/api/undo", json={"annotator": "ada"}).json()["items"][0]["id"] == desk.items[1].id


def test_one_person_has_one_name_however_it_is_composed(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    for name in ("Ren\u00e9", "Rene\u0301"):
        client.post("/api/answer", json={"item": desk.items[0].id, "annotator": name, "answer": "left", "seconds": 1.0})
    assert [vote.annotator for vote in desk.votes.all()] == ["Ren\u00e9"]


def test_votes_that_cannot_be_read_or_written_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "garbage").write_bytes(b"no database " * 500)
    (tmp_path / "folder").mkdir()
    for name, error in (("garbage", DataError), ("folder", BusyStoreError)):
        with pytest.raises(error, match=name):
            VoteStore(tmp_path / name)


def test_other_hosts_need_a_token(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(run.dir), "--host", "0.0.0.0"]) == 2
    assert "--token" in capsys.readouterr().err


def test_the_page_is_served_with_a_limit_on_slow_headers(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: taken.append(self.config))
    assert main(["annotate", str(run.dir), "--port", "0"]) == 0
    assert taken[0].host == "127.0.0.1"
    assert issubclass(taken[0].http, PatientProtocol)


def test_a_limit_below_one_is_refused_and_drops_no_pair_from_the_end(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for limit in ("0", "-1"):
        assert main(["annotate", str(run.dir), "--limit", limit]) == 2
        assert f"limit is {limit}, expected at least 1" in capsys.readouterr().err


def test_export_without_answers_says_what_to_do(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["annotate", str(run.dir), "--export"]) == 2
    assert "label some pairs first" in capsys.readouterr().err


# --- several studies in one file


def test_undo_and_progress_stay_inside_their_study(run: Run) -> None:
    desk = Desk.open(run, Plan(), Overlap(0.0))
    other = plan_items(run, Plan(editors=("steady", "sloppy")))
    shared = desk.items[0]
    foreign = next(item for item in other if item.id not in desk.queue.items)
    desk.votes.put(vote(shared.id, "ada", study="pairs"))
    desk.votes.put(vote(foreign.id, "ada", study="gsb steady -> sloppy"))
    desk.votes.put(vote(desk.items[1].id, "ada", study="gsb steady -> sloppy"))  # a pair of both studies, answered in the other
    desk.votes.close()
    desk = Desk.open(run, Plan(), Overlap(0.0))
    assert desk.next("ada")["done"] == 2  # of the two pairs of this study; the third is none
    assert (desk.undo("ada") or {})["id"] == shared.id
    assert desk.undo("ada") is None
    assert len(desk.votes.all()) == 2


def test_two_studies_that_run_at_once_keep_their_own_answers_about_a_shared_pair(run: Run) -> None:
    pairs, gsb_plan = Desk.open(run, Plan(pairs_per_task=3), Overlap(0.0)), Plan(editors=("steady", "sloppy"))
    study = Desk.open(run, gsb_plan, Overlap(0.0))
    shared = next(key for key in study.queue.items if key in pairs.queue.items)
    pairs.answer(AnswerBody(item=shared, annotator="ada", answer="same", seconds=1.0))
    study.answer(AnswerBody(item=shared, annotator="ada", answer="left", seconds=1.0))
    assert [v.answer for v in pairs.votes.all("pairs")] == ["same"]
    assert len(study.votes.all()) == 1  # a person has one opinion of a pair, the latest
    assert study.votes.all()[0].study == gsb_plan.study
    assert (study.undo("ada") or {})["id"] == shared
    assert [v.answer for v in study.votes.all()] == ["same"]  # the other study's stands
    assert study.undo("ada") is None


def test_every_vote_is_exported_or_told(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    pairs, study = plan_items(run, Plan(pairs_per_task=3)), plan_items(run, Plan(editors=("steady", "sloppy")))
    store = VoteStore(run.dir / DATABASE)
    pair = next(item for item in pairs if item.id not in {other.id for other in study})
    store.put(vote(pair.id, "ada", "a"))
    store.put(vote(pair.id, "bob", "b"))
    store.put(vote(pair.id, "eve", "b"))
    store.put(vote(study[0].id, "ada", "same", study="gsb steady -> sloppy"))
    store.put(vote(study[1].id, "ada", "skip", study="gsb steady -> sloppy"))
    store.put(vote("0" * 16, "ada", "a"))
    store.put(dataclasses.replace(vote(study[2].id, "ada", "a"), control=True))
    store.close()
    assert main(["annotate", str(run.dir), "--csv", "--limit", "1"]) == 0
    said = capsys.readouterr().out
    assert "4 rows of 7 votes" in said
    for words in ("1 skipped", "1 about edits that this run does not hold", "1 about control questions", "1 pairs have contradictory"):
        assert words in said
    assert main(["annotate", str(run.dir), "--csv", "--majority"]) == 0
    said = capsys.readouterr().out
    assert "2 rows of 7 votes" in said
    assert "2 that went into a majority" in said
    assert ",b,majority of 3," in (run.dir / "annotations.csv").read_text()
    assert main(["annotate", str(run.dir), "--csv", "--gsb", "steady", "sloppy"]) == 0
    assert "4 of the study 'pairs'" in capsys.readouterr().out


def test_a_draw_has_no_majority_until_the_owner_decides(run: Run) -> None:
    item = plan_items(run, Plan())[0]
    draw = [vote(item.id, "ada", "a"), vote(item.id, "bob", "b")]
    exported = export(run, draw, with_majority=True)
    assert (exported.rows, exported.left_out) == ([], {"about pairs without a majority": 2})
    decided = export(run, [*draw, vote(item.id, ADJUDICATOR, "a")], with_majority=True)
    assert [row[2:4] for row in decided.rows] == [("a", ADJUDICATOR)]
    plain = export(run, [*draw, vote(item.id, ADJUDICATOR, "a")])
    assert [row[3] for row in plain.rows] == ["ada", "bob"]
    assert plain.num_contradictory == 1


def test_votes_of_an_older_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / DATABASE
    old = sqlite3.connect(path)
    old.execute(
        "CREATE TABLE votes (number INTEGER PRIMARY KEY, item TEXT NOT NULL, annotator TEXT NOT NULL, answer TEXT NOT NULL,"
        " swapped INTEGER NOT NULL, seconds REAL NOT NULL, at TEXT NOT NULL, UNIQUE (item, annotator))"
    )
    old.execute("INSERT INTO votes VALUES (1, 'item0', 'ada', 'a', 0, 2.5, 't'), (2, 'item1', 'ada', 'b', 0, 0.0, 't')")
    old.commit()
    old.close()
    VoteStore(path).close()
    store = VoteStore(path)
    assert [(v.item, v.imported) for v in store.all()] == [("item0", False), ("item1", True)]
    assert (store.undo("ada", "pairs", {"item0", "item1"}) or vote("", "")).item == "item0"


def test_a_locked_file_refuses_one_answer_and_holds_up_nobody(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    client.post("/api/next", json={"annotator": "ada"})
    other = sqlite3.connect(desk.votes.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    body = {"item": desk.items[0].id, "annotator": "ada", "answer": "left", "seconds": 1.0}
    locked = client.post("/api/answer", json=body)
    assert (locked.status_code, locked.headers["retry-after"]) == (503, "1")
    assert "locked" in locked.json()["error"]
    assert client.post("/api/next", json={"annotator": "bob"}).status_code == 200
    other.execute("ROLLBACK")
    assert client.post("/api/answer", json=body).status_code == 200


# --- who sees and holds what


def test_names_that_only_look_in_exhaust_nothing(run: Run) -> None:
    queue = Queue(items_of(145), [], Overlap(0.1))
    for number in range(200):
        queue.next(f"visitor{number}", 4)
    for number in range(145):
        item = queue.next("ada", 4)[0]
        queue.answered(vote(item.id, "ada"))
        assert queue.remaining("ada") == 144 - number
    assert queue.next("ada", 4) == []


def test_a_lease_is_taken_by_a_page_of_ours_only(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost:8765")
    assert client.get("/api/next", params={"annotator": "eve"}).status_code == 405
    assert client.post("/api/next", json={"annotator": "eve"}, headers={"Origin": "http://evil.example"}).status_code == 403
    forged = client.post("/api/next", content=b'{"annotator": "eve"}', headers={"content-type": "text/plain"})
    assert forged.status_code == 422
    assert client.get(f"/image/{desk.items[0].a.image.digest}", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403
    assert client.post("/api/next", json={"annotator": "eve"}, headers={"Origin": "http://localhost:8765"}).status_code == 200


def test_results_are_the_owners(desk: Desk) -> None:
    client = TestClient(build_app(desk), base_url="http://localhost")
    body = {"item": desk.items[0].id, "label": "a"}
    for refused in (client.get("/api/results"), client.get("/api/annotations.csv"), client.post("/api/decide", json=body)):
        assert refused.status_code == 403
        assert "owner" in refused.json()["error"]
    client.get("/", params={"owner": "guess"})
    assert client.get("/api/results").status_code == 403
    client.get("/", params={"owner": desk.owner_key})
    assert client.get("/api/results").status_code == 200
    assert client.post("/api/decide", json=body).status_code == 200
    assert client.post("/api/next", json={"annotator": "Adjudication"}).status_code == 422


def test_sides_hang_on_a_secret_of_the_run(tmp_path: Path) -> None:
    secrets = [VoteStore(tmp_path / f"{number}.sqlite").secret("sides") for number in range(2)]
    assert secrets[0] != secrets[1]
    assert VoteStore(tmp_path / "0.sqlite").secret("sides") == secrets[0]
    items = items_of(200)
    first, second = ([is_swapped(item, "ada", secret) for item in items] for secret in secrets)
    assert 60 < sum(one == other for one, other in zip(first, second, strict=True)) < 140


def test_pictures_are_served_without_what_tells_their_maker(run: Run) -> None:
    desk = Desk.open(run, Plan(), Overlap(0.0))
    picture = Image.new("RGB", (8, 8), "teal")
    buffer = io.BytesIO()
    info = PngImagePlugin.PngInfo()
    info.add_text("Software", "secret-editor 2.0")
    exif = Image.Exif()
    exif[0x0131] = "secret-editor 2.0"
    picture.save(
        buffer,
        "PNG",
        pnginfo=info,
        dpi=(300, 300),
        icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
        exif=exif,
    )
    jpeg = io.BytesIO()
    picture.save(jpeg, "JPEG", exif=exif, comment=b"secret-editor", quality=95)
    item = desk.items[0]
    refs = [run.images.put(data.getvalue()) for data in (buffer, jpeg)]
    desk.items[0] = dataclasses.replace(item, a=dataclasses.replace(item.a, image=refs[0]), b=dataclasses.replace(item.b, image=refs[1]))
    client = TestClient(build_app(desk), base_url="http://localhost")
    for ref in refs:
        reply = client.get(f"/image/{ref.digest}")
        assert reply.headers["content-type"] == "image/png"
        served = Image.open(io.BytesIO(reply.content))
        assert served.info == {}
        assert not served.getexif()
        assert served.tobytes() == run.images.get(ref).tobytes()


def test_people_who_do_not_look_are_flagged() -> None:
    items = items_of(30)
    fast = [dataclasses.replace(vote(item.id, "hasty"), seconds=0.36) for item in items]
    left = [Vote(item.id, "lefty", "b" if n % 2 else "a", bool(n % 2), 4.0) for n, item in enumerate(items)]
    calm = [Vote(item.id, "calm", "b" if n % 3 else "a", bool(n % 2), 4.0) for n, item in enumerate(items)]
    flags = {person["name"]: person["flags"] for person in summarise(items, [*fast, *left, *calm], None)["annotators"]}
    assert [len(flags[name]) for name in ("calm", "lefty")] == [0, 1]
    assert "0.36 s" in flags["hasty"][0]


def test_win_rates_count_one_answer_a_pair(run: Run) -> None:
    items = plan_items(run, Plan(editors=("steady", "sloppy")))[:3]
    votes = [vote(items[0].id, name, answer) for name, answer in (("ada", "a"), ("bob", "a"), ("eve", "b"))]
    votes += [vote(items[1].id, "ada", "b"), vote(items[2].id, "ada", "a"), vote(items[2].id, "bob", "b")]
    rows = {row["name"]: (row["won"], row["same"], row["lost"], row["rate"]) for row in summarise(items, votes, None)["editors"]}
    assert rows == {"steady": (1, 1, 1, 0.5), "sloppy": (1, 1, 1, 0.5)}
