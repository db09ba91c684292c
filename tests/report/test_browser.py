"""The report as a reader meets it, in a real Chromium: offline, light and dark, filters, verdicts, curves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from browser import chromium
from editr1.report import write_report
from small_run import make_run


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    report = write_report(make_run(tmp_path_factory.mktemp("report") / "run").dir)
    with chromium() as browser:
        context = browser.new_context(offline=True, color_scheme="dark")
        opened = context.new_page()
        opened.problems = []
        opened.on("pageerror", lambda error: opened.problems.append(str(error)))
        opened.on("console", lambda message: opened.problems.append(message.text) if message.type == "error" else None)
        opened.goto(report.as_uri())
        yield opened


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


def test_a_curve_is_read_by_pointer_and_by_keys(page: Any) -> None:
    plot = page.locator(".chart svg").first
    plot.scroll_into_view_if_needed()
    plot.hover()
    read = page.inner_text("#tip-box")
    assert read.startswith("step ")
    plot.focus()
    plot.press("ArrowRight")
    assert page.inner_text("#tip-box") != read


def test_nothing_runs_off_a_phone(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
