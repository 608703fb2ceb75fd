"""The page as text: what it says, that nothing of the data can speak for itself, and what it refuses."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from made_up_sitting import CONDITIONS, VARIANTS, made_up_drift, made_up_ledger, made_up_rows
from test_ledger import HEADER, make_row

from edgelip.bench.statistics import wilson_interval
from edgelip.errors import MissingError, UsageError
from edgelip.report.columns import SECTIONS
from edgelip.report.ledger import Ledger
from edgelip.report.metrics import METRICS
from edgelip.report.page import page_html
from edgelip.report.page_words import BADGE_TEXTS, definition
from edgelip.report.results import ResultRow
from edgelip.runtime.measurement import BADGES

HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(2)>",
    "{{ 7 * 7 }}{% raw %}",
    "<!--<script>",
    "\u202egnp.exe\u2028\u0000",
    "half \ud800 pair",
)


class _Elements(HTMLParser):
    """Every element, the texts inside of each table's rows, and the text of each script."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.scripts: list[str] = []
        self.styles: list[str] = []
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attributes: Any) -> None:
        values = dict(attributes)
        self.elements.append((tag, values))
        if tag == "table":
            self._rows = self.tables.setdefault(values["id"] or "", [])
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("th", "td"):
            self._rows[-1].append("")
        elif tag == "script":
            self.scripts.append("")
        self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._open:
            self.scripts[-1] += data
        elif "style" in self._open:
            self.styles.append(data)
        elif "td" in self._open or "th" in self._open:
            self._rows[-1][-1] += data


@pytest.fixture(scope="module")
def html() -> str:
    rows = made_up_rows()
    return page_html(made_up_ledger(rows), rows, drift=made_up_drift())


@pytest.fixture(scope="module")
def page(html: str) -> _Elements:
    return _Elements(html)


def test_the_same_values_give_the_same_page(html: str) -> None:
    rows = made_up_rows()
    assert page_html(made_up_ledger(rows), rows, drift=made_up_drift()) == html


def test_nothing_is_fetched_from_anywhere(html: str, page: _Elements) -> None:
    assert not re.search(r"https?:(?!//www\.w3\.org/2000/svg)", html)
    assert not re.search(r"@import|url\(", html)
    for tag, attributes in page.elements:
        for name in ("src", "href", "action", "data", "srcset"):
            assert (attributes.get(name) or "data:").startswith("data:"), (tag, attributes)
        assert "style" not in attributes
        assert not any(name.startswith("on") for name in attributes)


def test_only_its_own_script_and_style_may_run(page: _Elements) -> None:
    policy = next(
        a["content"] for t, a in page.elements if t == "meta" and "Content-Security" in str(a.get("http-equiv"))
    )
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    for text in (page.scripts[-1], "".join(page.styles)):
        assert base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() in policy


def test_the_table_has_every_column_of_the_ledger_and_invalid_rows_last(page: _Elements) -> None:
    headings, *lines = page.tables["row"][1:]
    assert {
        "latency p50, ms",
        "query p99, ms",
        "peak memory, MiB",
        "energy above idle, mJ",
        "deadlines missed, %",
    } <= set(headings)
    assert all(len(line) == len(headings) for line in lines)
    names = [" ".join(line[0].split()) for line in lines]
    assert names[-2:] == ["int8-nncf THROTTLED", "pruned-phm4-int8 NOISY"]
    assert names[0] == "dense"
    assert lines[0][headings.index("latency p50, ms")].strip() == "2.51 [2.46, 2.56]"


def test_the_reasons_of_a_badge_are_told(html: str) -> None:
    assert "SingleStream THROTTLED: throttle bit 0x4 was set after launch 3" in html
    assert set(BADGE_TEXTS) == set(BADGES)


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    rows = [row for row in made_up_rows() if (row.variant, row.scenario) != ("pruned", "Offline")]
    table = _Elements(page_html(made_up_ledger(rows), rows)).tables["row"]
    place = table[1].index("throughput, clips/s")
    assert {line[0]: line[place] for line in table[2:]}["pruned"].strip() == "—"


def test_the_plot_marks_the_front_of_each_axis(page: _Elements) -> None:
    plot = json.loads(page.scripts[0])
    names = {point["row"]: point["name"] for point in plot["points"]}
    fronts = {axis["key"]: [names[row] for row in axis["front"]] for axis in plot["axes"]}
    assert fronts["file_bytes"][0] == "phm4-int8"
    assert fronts["latency_p50_ms"] == ["phm4-int8", "phm4 @ openvino fp32 1t hint=latency", "dense"]
    assert "energy_gross_j" in fronts
    assert [point["valid"] for point in plot["points"]] == [True] * 5 + [False] * 2
    dense = next(point for point in plot["points"] if point["name"] == "dense")
    assert dense["x"]["file_bytes"] == {"value": 3612.0, "ends": None}
    assert dense["x"]["latency_p50_ms"]["ends"] == pytest.approx([2.51 * 0.98, 2.51 * 1.02])
    assert ["latency p50, ms", "2.51 [2.46, 2.56]"] in dense["hover"]


def test_no_front_is_drawn_over_times_of_several_sittings() -> None:
    ledger = Ledger.from_rows(HEADER, [make_row("a", sitting="1"), make_row("b", sitting="2")])
    axes = {axis["key"]: axis for axis in json.loads(_Elements(page_html(ledger)).scripts[0])["axes"]}
    assert axes["latency_p50_ms"]["front"] == []
    assert axes["latency_p50_ms"]["note"] == "Figures of different sittings do not compare: no front is drawn."
    assert axes["file_bytes"]["front"] == [0, 1]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_text_stays_a_text(name: str) -> None:
    names = {variant: f"{name} {variant}" for variant, *_ in VARIANTS}
    rows = made_up_rows(names=names, reasons=(name,), command=name)
    details = {"words": [{"word": name, "clips": 3, "right": 1, "taken_for": [[name, 2]]}],
               "layers": [{"name": name, "ms": 1.0, "limits": name}]}  # fmt: skip
    rows = [ResultRow(**{**_fields_of(row), "details": details}) for row in rows]
    ledger = made_up_ledger(rows)
    html = page_html(ledger, rows)
    html.encode()
    read, plain = _Elements(html), _Elements(page_html(made_up_ledger()))
    assert len(read.scripts) == len(plain.scripts) == 2
    assert not [tag for tag, _ in read.elements if tag == "img"]
    assert read.scripts[1] == plain.scripts[1]
    told = name.encode("utf-8", "replace").decode()
    points = json.loads(read.scripts[0])["points"]
    assert {point["name"] for point in points} == {row.variant for row in ledger.rows}
    if "\u0000" not in name:  # which HTML has no text for
        assert any(told in cell for row in read.tables["row"] for cell in row)


def test_every_heading_has_a_definition() -> None:
    headings = [column.heading for section in SECTIONS.values() for column in section]
    headings += [known.label for known in METRICS.values()] + ["top-1 at low light, %", "drop at low light, points"]
    assert not [text for text in headings if not definition(text)]
    assert definition("latency p90, early stopping 99 %, ms") != definition("latency p90, ms")


def test_words_have_wilson_intervals_and_the_worst_stands_first(page: _Elements) -> None:
    headings, *lines = page.tables["words-0"]
    assert headings[:4] == ["word", "clips", "right", "top-1, %"]
    word, clips, right, share, low, high, others = (cell.strip() for cell in lines[0])
    expected = wilson_interval(int(right), int(clips))
    assert (word, share, others) == ("because", "82.0", "minister 18")
    assert (low, high) == (f"{100 * expected.low:.1f}", f"{100 * expected.high:.1f}")
    assert len(lines) == 6


def test_layers_are_told_in_their_order(page: _Elements) -> None:
    lines = page.tables["layers-0"]
    assert [line[0].strip() for line in lines] == [
        "part", "stem", "trunk.stage1", "trunk.stage2", "tcn", "head", "between layers",
    ]  # fmt: skip
    assert [cell.strip() for cell in lines[1]] == ["stem", "0.778", "31.0", "0.039", "100", "41.2", "37", "arithmetic"]


def test_robustness_is_coloured_by_the_drop(html: str) -> None:
    line = html[html.index('id="heat-0"') :].partition("</tr>")[0]
    levels = [int(each) for each in re.findall(r"heat(\d)\"", line)]
    drops = [CONDITIONS[name] for name in sorted(CONDITIONS)]
    assert levels == [sum(drop >= least for least in (0.5, 1, 2, 5, 10, 20)) for drop in drops]


def test_drift_is_told_where_it_is_given(page: _Elements, html: str) -> None:
    line = [cell.strip() for cell in page.tables["drifted"][1]]
    assert line == [
        "dense on here", "ort fp32 1t", "SingleStream", "latency p50, ms", "2.200", "2.510", "14.1", "3", "worse",
        "onnxruntime",
    ]  # fmt: skip
    assert "Drift" not in page_html(made_up_ledger(), made_up_rows())


def test_each_row_has_the_command_that_repeats_it(page: _Elements) -> None:
    headings, *lines = page.tables["fact"]
    assert len(lines) == len(made_up_rows())
    assert {line[headings.index("command")].strip() for line in lines} >= {"edgelip bench quick.toml --only 'dense'"}


def test_an_export_without_results_has_its_page_too() -> None:
    page = _Elements(page_html(Ledger.from_rows(HEADER, [make_row("dense"), make_row("bad", badge=None)])))
    assert [line[0].split() for line in page.tables["row"][2:]] == [["dense"], ["bad", "no", "badge"]]
    assert page.tables["fact"][1][6].strip() == "edgelip export quickstart.toml"
    assert not {"layers-0", "words-0", "heat"} & set(page.tables)


def test_a_ledger_without_accuracy_says_why_there_is_no_plot() -> None:
    html = page_html(Ledger.from_rows(HEADER, [make_row("dense", top1_pct=None)]))
    assert "No row has both a top-1 and a size, latency or energy." in html


_WORDS = "expected a list of tables with word, clips >= 1, right <= clips and taken_for. Measure that row again."


@pytest.mark.parametrize(
    ("details", "message"),
    [
        (
            {"layers": "stem"},
            "dense, Static: details have layers with a str; expected a list of tables with name and ms.",
        ),
        ({"layers": [{"name": "stem", "ms": "1"}]}, "details have layers with ms '1'; expected a list"),
        ({"layers": [{"name": "stem", "ms": 1, "gops": float("nan")}]}, "details have layers with gops nan;"),
        ({"layers": [3]}, "details have layers with an entry that is a int;"),
        ({"words": [{"word": "a", "clips": 2, "right": 3}]}, f"with 'a': 3 right of 2 clips; {_WORDS}"),
        ({"words": [{"word": "a", "clips": 2, "right": 1, "taken_for": [1]}]}, f"with 'a' taken for '[1]'; {_WORDS}"),
        ({"sheet_png": "no base64!"}, "details have sheet_png with text that is not base64"),
        ({"sheet_png": "PHN2Zz4="}, "with a picture that is no PNG; expected a PNG in base64 of at most 4 MB."),
        ({"sheet_png": 7}, "details have sheet_png with int of 1 characters;"),
    ],
)
def test_details_that_do_not_fit_are_refused(details: dict[str, Any], message: str) -> None:
    rows = [ResultRow(**{**_fields_of(row), "details": details}) for row in made_up_rows()]
    with pytest.raises(UsageError, match=re.escape(message)):
        page_html(made_up_ledger(), rows)


def test_without_jinja2_it_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingError, match=r'pip install "edgelip\[report\]"'):
        page_html(made_up_ledger())


def _fields_of(row: ResultRow) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__dataclass_fields__}
