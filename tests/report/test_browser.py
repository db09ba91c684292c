"""The report as a reader meets it, in a real Chromium: offline, light and dark, filters, verdicts, curves."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from browser import chromium
from editr1.report import write_report
from editr1.schema import Metric
from editr1.store import Run
from small_run import make_run


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


@pytest.fixture(scope="module")
def page(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    report, _ = write_report(make_run(tmp_path_factory.mktemp("report") / "run").dir)
    context = browser.new_context(offline=True, color_scheme="dark")
    opened = context.new_page()
    opened.problems = []
    opened.on("pageerror", lambda error: opened.problems.append(str(error)))
    opened.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
    opened.goto(report.as_uri())
    return opened


def test_it_works_offline_without_a_complaint(page: Any) -> None:
    assert page.locator(".shot").count() > 0
    assert page.problems == []


def test_dark_follows_the_reader_and_can_be_switched(page: Any) -> None:
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    assert page.evaluate(background) != dark
    page.click("#theme")
    assert page.evaluate(background) == dark


def test_pixel_art_keeps_its_pixels(page: Any) -> None:
    page.locator(".task-head img").first.scroll_into_view_if_needed()
    page.wait_for_selector(".task-head img.pixel")
    assert page.eval_on_selector(".task-head img.pixel", "(image) => getComputedStyle(image).imageRendering") == "pixelated"


def test_filters_leave_what_they_name(page: Any) -> None:
    everything = page.locator(".shot").count()
    page.select_option("#filters select[name=editor]", "sloppy")
    shown = page.locator(".shot .who span:first-child").all_inner_texts()
    assert set(shown) == {"sloppy"}
    assert len(shown) < everything
    page.select_option("#filters select[name=editor]", "")
    page.fill("#filters input[name=text]", "no instruction says this")
    assert page.locator(".empty").is_visible()
    page.fill("#filters input[name=text]", "")
    assert page.locator(".shot").count() == everything


def test_an_edit_opens_with_marked_disagreements_and_traces_on_demand(page: Any) -> None:
    page.locator(".shot").first.click()
    assert page.locator("dialog .verdicts tr.split").count() > 0
    assert page.locator("dialog .trace").is_hidden()
    page.locator("dialog .verdicts th button").last.click()
    assert "<img src=x onerror=alert(1)>" in page.inner_text("dialog .trace pre")  # text, not markup
    assert page.locator("dialog .trace img").count() == 0
    page.keyboard.press("Escape")


def test_the_back_button_closes_an_edit_and_stays_on_the_page(page: Any) -> None:
    address, sheet = page.url, page.locator("#detail")
    page.locator(".shot").first.click()
    page.go_back()
    sheet.wait_for(state="hidden")
    assert page.url == address
    page.locator(".shot").first.click()
    page.keyboard.press("Escape")
    page.wait_for_function("() => !history.state?.sheet")  # closed otherwise it leaves nothing behind that a step back would find
    assert page.url == address


def test_soft_words_can_be_read(page: Any) -> None:
    """WCAG AA, 4.5 to 1, of the palest text on the page's background, in light and dark."""
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours = page.evaluate(
            """() => ["--faint", "--bg"].map((name) => { const node = document.body.appendChild(document.createElement("i"));
               node.style.color = `var(${name})`; const found = getComputedStyle(node).color; node.remove(); return found; })"""
        )
        light = sorted(_luminance([int(part) / 255 for part in re.findall(r"\d+", colour)]) for colour in colours)
        assert (light[1] + 0.05) / (light[0] + 0.05) >= 4.5


def _luminance(rgb: list[float]) -> float:
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in rgb]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_a_curve_is_read_by_pointer_and_by_keys(page: Any) -> None:
    plot = page.locator(".chart svg").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    read = page.inner_text("#tip-box")
    assert read.startswith("step ")
    plot.focus()
    plot.press("ArrowRight")
    assert page.inner_text("#tip-box") != read


def test_the_slider_moves_by_keys_and_says_what_it_does(page: Any) -> None:
    slider = page.locator(".slider input").first
    cut = "(input) => input.parentElement.style.getPropertyValue('--cut')"
    slider.focus()
    slider.press("Home")
    assert slider.evaluate(cut) == "0%"
    slider.press("ArrowRight")
    assert slider.evaluate(cut) == "1%"
    assert "before RL" in slider.get_attribute("aria-label")
    assert page.locator(".slider img:not([alt])").count() == 0


def test_the_largest_change_comes_first(page: Any) -> None:
    shown = page.locator(".strip .chip").all_inner_texts()
    sizes = [float(text.lstrip("▲▼ +−")) for text in shown if text != "no change known"]
    assert sizes == sorted(sizes, reverse=True)
    page.select_option("#pair-filters select[name=order]", "loss")
    assert page.locator(".strip .chip").first.inner_text().startswith("▼")
    page.select_option("#pair-filters select[name=which]", label="Held-out evaluations while training")
    assert "iteration 60" in page.locator(".strip figcaption").nth(1).inner_text()
    assert page.problems == []


def test_nothing_runs_off_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_page_that_is_watched_shows_what_is_new_and_leaves_the_reader_in_place(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=4)
    report, _ = write_report(run.dir, refresh=1)
    page = browser.new_context(offline=True).new_page()
    page.goto(report.as_uri())
    table = page.locator("#table-0")

    def opened() -> bool:  # a click that meets the reload is lost with the page that it met
        if table.get_attribute("open") is None:
            table.locator("summary").first.click()
        return table.get_attribute("open") is not None

    _until(opened)
    page.evaluate("scrollTo({top: 900, behavior: 'instant'})")
    run.add_metric(Metric("pair_accuracy/newcomer", 0.6, 0.5, 0.7, 100))
    write_report(run.dir, refresh=1)
    page.wait_for_selector("text=newcomer", timeout=20_000, state="attached")
    page.wait_for_function("scrollY === 900")
    assert page.locator("#table-0").get_attribute("open") is not None
    assert page.locator("#table-1").get_attribute("open") is None
    assert page.locator(".live").is_visible()
    write_report(run.dir)  # as the end of watching does
    page.wait_for_selector(".live", state="detached", timeout=20_000)


def test_watching_writes_again_when_the_run_goes_on(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "run")
    run.log("sft", 1, {"loss": 1.0})
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    # where the tests run in the background, children are born deaf to Ctrl-C
    hearing = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    words = [sys.executable, "-m", "editr1.cli", "report", str(run.dir), "--watch", "1"]
    watcher = subprocess.Popen(words, env=environment, preexec_fn=hearing)
    page = run.dir / "report.html"
    try:
        _until(page.exists)
        written = page.stat().st_mtime_ns
        assert '"refresh":1' in page.read_text(encoding="utf-8")
        run.log("gcpo", 1, {"parse_rate": 0.0})
        _until(lambda: page.stat().st_mtime_ns > written)
        assert "parse_rate is 0" in page.read_text(encoding="utf-8")
    finally:
        watcher.send_signal(signal.SIGINT)
        assert watcher.wait(30) == 0
    assert '"refresh":0' in page.read_text(encoding="utf-8")


def _until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.1)


def test_several_runs_work_in_a_browser(browser: Any, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", num_tasks=3)
    shutil.copytree(run.dir, tmp_path / "twin")
    comparison, _ = write_report(run.dir, tmp_path / "twin")
    assert comparison == run.dir / "comparison.html"
    page = browser.new_context(offline=True, viewport={"width": 390, "height": 844}).new_page()
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto(comparison.as_uri())
    assert page.locator("#same-tasks .shots figure").count() == 6
    assert page.locator(".chart .keys").count() > 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert problems == []
