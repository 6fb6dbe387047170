"""The report as a reader has it: in a real browser, sorted, enlarged, followed to its definitions, on a phone."""

from __future__ import annotations

import io
from collections.abc import Iterator

import numpy as np
import pytest
from browser import CHROMIUM, Page, browser
from matplotlib.figure import Figure
from synthetic_run import make_run, make_tables

from mechinterp.report import write_report
from mechinterp.report.plates import PLATES

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")

EDITS = "[...document.querySelectorAll('table')].find((one) => one.caption.textContent === 'tables/edits.csv')"
COLUMN = f"[...{EDITS}.tHead.rows[0].cells].find((one) => one.textContent.startsWith('erasure answer'))"
SHOWN = f"[...{EDITS}.tBodies[0].rows].map((row) => row.cells[{COLUMN}.cellIndex].textContent)"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """The page of a whole run, its pictures stand-ins of a few pixels."""
    folder = tmp_path_factory.mktemp("browser")
    tables = make_tables()
    tables["edits"]["erasure_answer"] = [10.0, np.nan, 9.0, -0.25]
    drawn = io.BytesIO()
    Figure(figsize=(7, 3)).savefig(drawn, dpi=20)
    pictures = [folder / f"{name}.png" for name in PLATES]
    for picture in pictures:
        picture.write_bytes(drawn.getvalue())
    report = write_report(make_run(folder / "run", tables), pictures)
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        opened.wide(1200)
        opened.open(report)
        yield opened
        assert opened.problems == []


def test_every_figure_is_seen(page: Page) -> None:
    assert page.run("[...document.images].map((one) => one.naturalWidth > 0 && one.width > 0)") == [True] * len(PLATES)


def test_a_column_sorts_as_numbers_and_what_is_undefined_stays_last(page: Page) -> None:
    before = ["10", "–", "9", "−0.25"]
    assert page.run(SHOWN) == before
    page.run(f"{COLUMN}.querySelector('button').focus()")
    orders = []
    for _ in range(3):
        page.press("Enter", 13, "\r")
        orders.append((page.run(f"{COLUMN}.getAttribute('aria-sort')"), page.run(SHOWN)))
    assert orders == [
        ("ascending", ["−0.25", "9", "10", "–"]),
        ("descending", ["10", "9", "−0.25", "–"]),
        (None, before),
    ]


def test_sorting_another_column_takes_the_mark_from_the_first(page: Page) -> None:
    for number in (0, 1):
        page.run(f"{EDITS}.tHead.querySelectorAll('button')[{number}].click()")
    assert page.run(f"{EDITS}.tHead.querySelectorAll('[aria-sort]').length") == 1


def test_text_that_only_begins_with_a_digit_is_sorted_as_text(page: Page) -> None:
    values = "[...document.querySelectorAll('.settings table')].find((one) => one.textContent.includes('9f2c01d3a4b5'))"
    page.run(f"{values}.tHead.querySelectorAll('button')[1].click()")
    assert page.run(f"[...{values}.tBodies[0].rows].map((row) => row.cells[1].textContent)")[0].startswith("9f2c")


def test_a_figure_opens_large_and_escape_closes_it(page: Page) -> None:
    page.run("document.querySelector('figure .enlarge').focus()")
    page.press("Enter", 13, "\r")
    assert page.run("document.querySelector('dialog').open")
    assert page.run("document.querySelector('dialog img').naturalWidth") > 0
    page.press("Escape", 27)
    assert not page.run("document.querySelector('dialog').open")
    assert page.run("document.activeElement.className") == "enlarge"
    page.run("document.querySelector('figure .enlarge').click(); document.querySelector('dialog .close').click()")
    assert not page.run("document.querySelector('dialog').open")


def test_a_heading_tells_and_leads_to_its_definition(page: Page) -> None:
    link = "document.querySelector('.card a[href=\"#defense.ds\"]')"
    assert page.run(f"{link}.title") == "share of responses to the adversarial prompts that are judged safe"
    page.run(f"{link}.click()")
    assert page.run("document.querySelector(':target').textContent").startswith("ds: share of responses")
    assert page.run("document.querySelector(':target').getBoundingClientRect().top >= 0")


@pytest.mark.parametrize("width", [1200, 400])
def test_no_width_makes_the_page_scroll_sideways(page: Page, width: int) -> None:
    page.wide(width)
    page.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert page.run("window.innerWidth") == width
    assert page.run("document.documentElement.scrollWidth") == width
