"""People at work in a real Chromium: keys, undo, reload, a killed server, two at once, a phone."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from browser import Server, chromium, free_port
from editr1.annotate.items import Plan, plan_items
from editr1.annotate.queue import is_swapped
from editr1.annotate.votes import DATABASE, Vote, VoteStore
from editr1.store import Run
from small_run import make_run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    make_run(tmp_path / "run", num_tasks=24, training=False)
    server = Server(["annotate", str(tmp_path / "run"), "--overlap", "0", "--principles"], free_port()).start()
    yield server
    server.kill()


def owner_key(server: Server) -> str:
    store = VoteStore(Path(server.arguments[1]) / DATABASE)
    try:
        return store.secret("owner")
    finally:
        store.close()


def votes(server: Server) -> list[Vote]:
    store = VoteStore(Path(server.arguments[1]) / DATABASE)
    try:
        return store.all()
    finally:
        store.close()


def sit_down(browser: Any, server: Server, name: str, **options: Any) -> Any:
    page = browser.new_context(**options).new_page()
    page.goto(server.url)
    page.fill("#name", name)
    page.keyboard.press("Enter")
    page.wait_for_selector("#desk:not([hidden])")
    return page


def shown(page: Any) -> str:
    return page.get_attribute("#desk", "data-item")


def press(page: Any, key: str) -> str:
    """Presses a key, waits for the next pair and returns the id of the answered one."""
    before = shown(page)
    page.keyboard.press(key)
    page.wait_for_function(
        "(id) => document.getElementById('desk').dataset.item !== id || !document.getElementById('done').hidden", arg=before
    )
    return before


def test_twenty_pairs_by_keys_with_undo_reload_and_a_killed_server(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada")
    keys = ["a", "b", "s", "ArrowLeft", "ArrowRight", "ArrowDown", "1", "2", "3", "k"]
    answered = [press(page, key) for key in keys]
    assert [vote.item for vote in votes(server)] == answered

    last = answered.pop()
    before = shown(page)
    page.keyboard.press("u")
    page.wait_for_function("(id) => document.getElementById('desk').dataset.item !== id", arg=before)
    assert shown(page) == last
    assert [vote.item for vote in votes(server)] == answered

    page.reload()
    page.wait_for_selector("#desk:not([hidden])")
    assert shown(page) == last
    answered.append(press(page, "a"))

    server.kill()
    held = shown(page)
    page.keyboard.press("b")
    page.wait_for_selector("#problem:not([hidden])")
    assert "not saved yet" in page.inner_text("#problem")
    assert shown(page) == held
    server.start()
    page.wait_for_function("(id) => document.getElementById('desk').dataset.item !== id", arg=held)
    assert page.is_hidden("#problem")
    answered.append(held)

    answered += [press(page, "s") for _ in range(9)]
    assert len(answered) == 20
    assert [vote.item for vote in votes(server)] == answered


def test_the_answer_means_the_picture_that_was_on_that_side(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada")
    items = {item.id: item for item in plan_items(Run.open(Path(server.arguments[1])), Plan())}
    sides = set()
    store = VoteStore(Path(server.arguments[1]) / DATABASE)
    secret = store.secret("sides")
    store.close()
    for _ in range(20):  # all on one side once in half a million times
        picture = page.get_attribute("#left", "src").rpartition("/")[2]
        item = items[press(page, "a")]
        vote = votes(server)[-1]
        assert (item.a if vote.label == "a" else item.b).image.digest == picture
        assert vote.swapped == (picture == item.b.image.digest) == is_swapped(item, "ada", secret)
        sides.add(vote.swapped)
    assert sides == {True, False}


def test_two_people_at_once_share_the_work(browser: Any, server: Server) -> None:
    ada, bob = sit_down(browser, server, "ada"), sit_down(browser, server, "bob")
    done = {"ada": [], "bob": []}
    for _ in range(6):
        done["ada"].append(press(ada, "a"))
        done["bob"].append(press(bob, "b"))
    assert not set(done["ada"]) & set(done["bob"])
    assert len(votes(server)) == 12


def test_zoom_is_shared_and_flicker_shows_the_source(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada")
    page.keyboard.press("z")
    frames = [page.evaluate(f"getComputedStyle(document.getElementById('{side}')).transform") for side in ("source", "left", "right")]
    assert frames[0].startswith("matrix(2.5")
    assert len(set(frames)) == 1
    left = page.get_attribute("#left", "src")
    page.keyboard.down("f")
    assert page.get_attribute("#left", "src") == page.get_attribute("#source", "src") != left
    page.keyboard.up("f")
    assert page.get_attribute("#left", "src") == left


def test_the_next_pairs_are_loaded_before_they_show(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada")
    page.wait_for_load_state("networkidle")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    press(page, "a")
    visible = {page.get_attribute(f"#{side}", "src") for side in ("source", "left", "right")}
    loaded = page.evaluate("performance.getEntriesByType('resource').map((entry) => new URL(entry.name).pathname)")
    assert visible <= set(loaded)


def test_a_pair_shows_only_with_all_its_pictures(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada")
    page.wait_for_load_state("networkidle")
    held: list[Any] = []
    online = False
    page.route("**/image/*", lambda route: route.continue_() if online else held.append(route))  # what is not preloaded yet hangs
    for _ in range(3):
        press(page, "a")
    before, instruction, source = shown(page), page.inner_text("#instruction"), page.get_attribute("#source", "src")
    page.keyboard.press("a")
    page.wait_for_function("() => document.querySelector('#answers button').disabled")
    page.keyboard.press("b")  # an answer to a pair that nobody has seen
    assert (shown(page), page.inner_text("#instruction"), page.get_attribute("#source", "src")) == (before, instruction, source)
    online = True
    for route in held:
        route.continue_()
    page.wait_for_function("(id) => document.getElementById('desk').dataset.item !== id", arg=before)
    assert [vote.label is not None for vote in votes(server)] == [True] * 4


def test_a_picture_that_never_arrives_can_be_skipped(browser: Any, server: Server) -> None:
    page = browser.new_context().new_page()
    page.route("**/image/*", lambda route: route.abort())
    page.goto(server.url)
    page.fill("#name", "ada")
    page.keyboard.press("Enter")
    page.wait_for_selector("#desk:not([hidden])")
    assert "cannot be shown" in page.inner_text("#problem")
    page.unroute("**/image/*")
    press(page, "k")
    assert [vote.answer for vote in votes(server)] == ["skip"]
    assert page.is_hidden("#problem")


def test_answers_and_tools_stay_in_reach_on_a_short_screen(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada", viewport={"width": 390, "height": 520})
    answers, tools = (page.locator(place).bounding_box() for place in ("#answers", "#tools"))
    assert answers["y"] + answers["height"] <= tools["y"]
    assert tools["y"] + tools["height"] <= 520


def test_a_phone_shows_everything_without_sideways_scrolling(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada", viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    before = shown(page)
    page.tap("[data-answer=right]")
    page.wait_for_function("(id) => document.getElementById('desk').dataset.item !== id", arg=before)
    assert len(votes(server)) == 1
    bottom = page.eval_on_selector("#answers", "(node) => node.getBoundingClientRect().bottom")
    assert bottom <= 844


def test_the_page_never_names_an_editor(browser: Any, server: Server) -> None:
    page = browser.new_context().new_page()
    bodies: list[str] = []
    page.on("response", lambda reply: bodies.append(reply.text()) if "/api/" in reply.url else None)
    page.goto(server.url)
    page.fill("#name", "ada")
    page.keyboard.press("Enter")
    page.wait_for_selector("#desk:not([hidden])")
    assert bodies
    assert not any(word in body for body in bodies for word in ("steady", "sloppy", '"a"', "editor", "swapped"))


def test_the_end_can_be_taken_back(browser: Any, tmp_path: Path) -> None:
    make_run(tmp_path / "run", num_tasks=4, training=False)
    server = Server(["annotate", str(tmp_path / "run"), "--limit", "1"], free_port()).start()
    try:
        page = sit_down(browser, server, "ada")
        only = shown(page)
        page.keyboard.press("a")
        page.wait_for_selector("#done:not([hidden])")
        page.keyboard.press("u")
        page.wait_for_selector("#desk:not([hidden])")
        assert shown(page) == only
        page.goto(server.url + "/results")
        page.wait_for_function("() => document.getElementById('summary').textContent.includes('for the owner')")
        assert page.inner_text("#sections") == ""
        page.goto(f"{server.url}/?owner={owner_key(server)}")
        assert "owner" not in page.url
        page.goto(server.url + "/results")
        page.wait_for_selector("#sections section")
        assert "ada" not in page.inner_text("#sections")
    finally:
        server.kill()


PHONE = {"has_touch": True, "is_mobile": True}


def test_a_tap_flickers_and_enlarges(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada", viewport={"width": 390, "height": 844}, **PHONE)
    left, source = page.get_attribute("#left", "src"), page.get_attribute("#source", "src")
    for target in ("#flicker", "#left"):
        page.tap(target)
        assert page.get_attribute("#left", "src") == source
        assert page.inner_text("#stage figure:nth-child(2) figcaption") == "source"
        page.wait_for_timeout(400)  # two taps in one moment are a zoom
        page.tap(target)
        assert page.get_attribute("#left", "src") == left
        page.wait_for_timeout(400)
    page.tap("#enlarge")
    seen = []
    for _ in range(3):
        seen.append(page.get_attribute("#large-picture", "src"))
        page.tap("#large-picture")
    assert seen == [left, source, page.get_attribute("#right", "src")]
    page.tap("#large-close")
    assert page.is_hidden("#large")


def test_a_pressed_button_does_not_keep_its_look_on_a_phone(browser: Any, server: Server) -> None:
    page = sit_down(browser, server, "ada", viewport={"width": 390, "height": 844}, **PHONE)
    border = "getComputedStyle(document.querySelector('[data-answer=right]')).borderColor"
    before, item = page.evaluate(border), shown(page)
    page.tap("[data-answer=right]")
    page.wait_for_function("(id) => document.getElementById('desk').dataset.item !== id", arg=item)
    assert page.evaluate(border) == before


@pytest.mark.parametrize(("width", "height"), [(390, 844), (844, 390), (667, 375), (1280, 800)])
def test_source_and_edits_are_equally_large_and_all_in_sight(browser: Any, server: Server, width: int, height: int) -> None:
    options = PHONE if width < 1000 else {}
    page = sit_down(browser, server, "ada", viewport={"width": width, "height": height}, **options)
    panes = [page.locator(f"#{side}").bounding_box() for side in ("source", "left", "right")]
    assert max(pane["width"] for pane in panes) - min(pane["width"] for pane in panes) < 2
    assert all(pane["y"] >= 0 and pane["y"] + pane["height"] <= height for pane in panes)
    answers = page.locator("#answers").bounding_box()
    assert answers["y"] + answers["height"] <= height
    assert all(pane["y"] + pane["height"] <= answers["y"] + 1 for pane in panes)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_panes_have_the_aspect_of_the_pictures(browser: Any, server: Server) -> None:
    wide = Image.new("RGB", (400, 200), "teal")
    buffer = io.BytesIO()
    wide.save(buffer, "PNG")
    page = browser.new_context(viewport={"width": 1280, "height": 800}).new_page()
    page.route("**/image/*", lambda route: route.fulfill(body=buffer.getvalue(), content_type="image/png"))
    page.goto(server.url)
    page.fill("#name", "ada")
    page.keyboard.press("Enter")
    page.wait_for_selector("#desk:not([hidden])")
    pane = page.locator(".source .pane").bounding_box()
    assert abs(pane["width"] / pane["height"] - 2) < 0.05


@pytest.mark.parametrize(("width", "height"), [(1280, 800), (390, 844), (844, 390)])
def test_instructions_of_any_length_and_script_leave_room_for_the_pictures(browser: Any, server: Server, width: int, height: int) -> None:
    page = sit_down(browser, server, "ada", viewport={"width": width, "height": height})
    for text in (
        "keep the shadow on the wall as it falls now, " * 40,
        "one_word_" * 40,
        "把天空变成紫色," * 60,
        "اجعل السماء أرجوانية. " * 40,
    ):
        page.evaluate("(text) => draw({ ...state.items[0], instruction: text, principles: [{ text }] })", text)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        answers = page.locator("#answers").bounding_box()
        panes = [pane.bounding_box() for pane in page.locator(".pane").all()]
        assert all(pane["y"] + min(pane["height"], 120) <= answers["y"] for pane in panes)  # none lies below the answers
        assert page.eval_on_selector("#instruction", "(node) => node.clientHeight") <= 0.3 * height + 1


def test_the_owner_settles_a_dispute_and_takes_the_majority_home(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=6, training=False)
    items = plan_items(run, Plan(editors=("steady", "sloppy")))
    store = VoteStore(run.dir / DATABASE)
    for name, answer in (("ada", "a"), ("bob", "b"), ("eve", "b")):
        store.put(Vote(items[0].id, name, answer, False, 0.3))
    store.close()
    server = Server(["annotate", str(run.dir), "--gsb", "steady", "sloppy"], free_port()).start()
    try:
        page = browser.new_context(accept_downloads=True).new_page()
        page.goto(f"{server.url}/?owner={owner_key(server)}")
        page.goto(server.url + "/results")
        page.wait_for_selector(".dispute img")
        assert "majority: B" in page.inner_text(".dispute")
        assert "1 pair" in page.inner_text("#sections")
        page.click(".dispute .choices button:has-text('A is better')")
        page.wait_for_selector(".dispute .choices button[aria-pressed=true]")
        assert "good 0" not in page.inner_text("#sections")
        assert "bad 1" in page.inner_text("#sections")
        with page.expect_download() as download:
            page.click("text=One answer a pair")
        assert ",a,adjudication," in Path(download.value.path()).read_text()
        page.click(".dispute .choices button:has-text('A is better')")
        page.wait_for_selector(".dispute .choices button[aria-pressed=false]:has-text('A is better')")
        assert [vote.annotator for vote in votes(server)] == ["ada", "bob", "eve"]
    finally:
        server.kill()
