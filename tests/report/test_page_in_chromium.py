"""The page as a reader has it: opened from disk in Chromium, sorted, pointed at, in the dark and on a phone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from chromium import Browser, chromium, require_chromium
from made_up_sitting import made_up_drift, made_up_ledger, made_up_rows
from test_page import HOSTILE

from edgelip.report.page import page_html

_NAMES = "return [...document.querySelectorAll('#row tbody tr')].map(r => r.cells[0].querySelector('bdi').textContent)"
_HEADING = "const h = [...document.querySelectorAll('#row th[scope=col]')].find(h => h.textContent === arguments[0]);"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    require_chromium()
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows, path = made_up_rows(), tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page_html(made_up_ledger(rows), rows, drift=made_up_drift()), "utf-8")
    return path


@pytest.fixture
def page(browser: Browser, report: Path) -> Browser:
    """The page just opened at 1280 px; what the last test said and asked is gone."""
    browser.resize(1280, 900)
    browser.prefer("light")
    browser.requests(), browser.console()
    browser.open(report)
    return browser


def _order(page: Browser) -> list[str]:
    names: list[str] = page.run(_NAMES)
    return names


def _sort(page: Browser, heading: str) -> str:
    """Click on a heading; its aria-sort after that."""
    state: str = page.run(f"{_HEADING} h.querySelector('button').click(); return h.ariaSort", heading)
    return state


def test_it_asks_nothing_of_a_network_and_complains_of_nothing(page: Browser, report: Path) -> None:
    page.run("for (const each of document.querySelectorAll('details')) each.open = true")
    for select in page.driver.find_elements("css selector", "#axis option"):
        select.click()
    assert page.requests() == [report.as_uri()]
    assert page.console() == []


def test_what_it_would_ask_is_seen_and_stopped(page: Browser) -> None:
    """Otherwise the test above could not fail."""
    page.console()
    page.run("const image = new Image(); image.src = 'http://127.0.0.1:9/x.png'; document.body.append(image)")
    assert any("Content Security Policy" in message for message in page.console())


def test_a_heading_sorts_both_ways_and_invalid_rows_stay_last(page: Browser) -> None:
    invalid = {"int8-nncf", "pruned-phm4-int8"}
    measured = _order(page)
    assert _sort(page, "file, kB") == "ascending"
    rising = _order(page)
    assert rising == ["phm4-int8", "phm4 @ openvino fp32 1t hint=latency", "phm4 @ ort fp32 1t", "pruned", "dense",
                      "pruned-phm4-int8", "int8-nncf"]  # fmt: skip
    assert _sort(page, "file, kB") == "descending"
    falling = _order(page)
    assert falling[0] == "dense"
    assert falling[4] == "phm4-int8"
    assert set(falling[-2:]) == set(rising[-2:]) == set(measured[-2:]) == invalid
    assert _sort(page, "variant") == "ascending"
    assert _order(page)[:2] == ["dense", "phm4 @ openvino fp32 1t hint=latency"]
    assert page.run(f"{_HEADING} return h.ariaSort", "file, kB") == "none"


def test_a_heading_sorts_from_the_keyboard(page: Browser) -> None:
    from selenium.webdriver import Keys

    page.run(f"{_HEADING} h.querySelector('button').focus()", "latency p50, ms")
    page.driver.switch_to.active_element.send_keys(Keys.ENTER)
    assert _order(page)[0] == "phm4-int8"


def test_a_value_that_is_missing_comes_last_both_ways(page: Browser) -> None:
    page.run("delete document.querySelector('#row-0').cells[4].dataset.sort")
    for _ in range(2):
        _sort(page, "file, kB")
        assert _order(page)[4] == "dense"


def test_pointing_at_a_point_tells_its_figures_and_a_click_marks_its_row(page: Browser) -> None:
    point = page.driver.find_element("css selector", "#canvas [data-row='0'] .dot")
    tip = page.driver.find_element("id", "tip")
    assert not tip.is_displayed()
    page.hover(point)
    assert tip.is_displayed()
    lines = tip.text.splitlines()
    assert lines[0] == "dense"
    assert lines[lines.index("latency p50, ms") + 1] == "2.51 [2.46, 2.56]"
    assert lines[lines.index("file, kB") + 1] == "3,612"
    point.click()
    assert page.run("return [...document.querySelectorAll('tr.chosen')].map(r => r.id)") == ["row-0"]


def test_the_axis_and_its_scale_can_be_changed(page: Browser) -> None:
    state = """return [document.querySelector('#canvas .title').textContent,
        document.querySelector('#canvas [data-row="0"] circle.dot').getAttribute('cx')]"""
    first = page.run(state)
    page.driver.find_element("css selector", "#axis option[value='latency_p90_ms']").click()
    second = page.run(state)
    page.driver.find_element("id", "log").click()
    third = page.run(state)
    assert [first[0], second[0], third[0]] == ["file, kB (log scale)", "latency p90, ms (log scale)", "latency p90, ms"]
    assert second[1] != third[1]
    assert page.run("return document.querySelectorAll('#canvas .mark').length") == 7


def test_names_cover_neither_points_nor_each_other(page: Browser) -> None:
    for option in page.driver.find_elements("css selector", "#axis option"):
        option.click()
        boxes = page.run("""return ['.name', '.dot'].map(kind => [...document.querySelectorAll('#canvas ' + kind)].map(
            each => { const b = each.getBoundingClientRect(); return [b.left, b.top, b.right, b.bottom] }))""")
        names, dots = boxes
        assert len(names) >= 5
        for place, own in enumerate(names):
            for other in names[place + 1 :] + dots:
                assert own[2] <= other[0] or other[2] <= own[0] or own[3] <= other[1] or other[3] <= own[1] + 3


def test_a_group_of_columns_can_be_put_away(page: Browser) -> None:
    shown = "return [...document.querySelectorAll('#row th[scope=col]')].filter(h => h.offsetWidth).length"
    before = page.run(shown)
    page.driver.find_element("css selector", "#groups label:nth-child(1) input").click()
    assert page.run(shown) == before - 6


def test_it_is_dark_where_the_reader_wants_it(page: Browser) -> None:
    colours = "const s = getComputedStyle(document.body); return [s.backgroundColor, s.color]"
    light = page.run(colours)
    page.prefer("dark")
    assert light == ["rgb(255, 255, 255)", "rgb(27, 35, 44)"]
    assert page.run(colours) == ["rgb(20, 24, 29)", "rgb(228, 233, 238)"]


def test_on_a_phone_only_the_tables_move_sideways(page: Browser, report: Path) -> None:
    page.resize(390, 800)
    page.open(report)
    assert page.run("return document.documentElement.scrollWidth") <= 390
    assert page.run("const b = document.querySelector('#ledger .box'); return b.scrollWidth > b.clientWidth")
    assert page.run("return document.querySelector('#canvas svg').getBoundingClientRect().right") <= 390


def test_hostile_names_run_nothing(browser: Browser, tmp_path: Path) -> None:
    names = dict(zip(("dense", "phm4-int8", "pruned", "int8-nncf"), HOSTILE[:4], strict=True))
    rows = made_up_rows(names=names, reasons=HOSTILE[:4])
    path = tmp_path / "report.html"
    path.write_text(page_html(made_up_ledger(rows), rows), "utf-8")
    browser.requests(), browser.console()
    browser.open(path)
    browser.hover(browser.driver.find_element("css selector", "#canvas .mark:last-of-type .dot"))
    assert browser.console() == []
    assert browser.requests() == [path.as_uri()]
    assert set(HOSTILE[:4]) <= set(browser.run(_NAMES))
    assert browser.run("return document.querySelectorAll('#canvas .mark').length") == 7


def test_without_a_browser_ci_fails_and_a_newcomer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="chromium, chromedriver missing: sudo apt-get install chromium"):
        require_chromium()
    monkeypatch.delenv("CI")
    with pytest.raises(pytest.skip.Exception, match="chromium, chromedriver missing: sudo apt-get install chromium"):
        require_chromium()
