from __future__ import annotations

import csv
import io
import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from edgelip.errors import MissingError
from edgelip.report.columns import sections_of, unmeasured_of
from edgelip.report.ledger import Ledger, LedgerRow
from edgelip.report.metrics import METRICS
from edgelip.report.tradeoff import csv_text, front_of, markdown_text, terminal_text, write_report

sys.path.insert(0, str(Path(__file__).parent))
from test_ledger import HEADER, make_row


def _ledger() -> Ledger:
    rows = [
        make_row("noisy", badge="NOISY", file_bytes=1, latency_p50_ms=0.1, top1_pct=99.0),
        make_row("dense", file_bytes=3_612_345, resident_weights_bytes=3_590_000, mcnemar_p=None),
        make_row("phm4", file_bytes=940_000, top1_pct=92.04, mcnemar_p=0.0004, top1_drop_points=-0.001),
        make_row("beaten", file_bytes=950_000, top1_pct=91.0),
        make_row("phm4-int8", file_bytes=260_000, top1_pct=91.9, latency_p50_ms=1.0, peak_memory_mib=None),
    ]
    return Ledger.from_rows(HEADER, rows)


def _tables(markdown: str) -> dict[str, dict[str, dict[str, str]]]:
    """Section -> variant -> heading -> cell."""
    tables: dict[str, dict[str, dict[str, str]]] = {}
    for section in markdown.split("\n## ")[1:]:
        lines = [line for line in section.splitlines() if line.startswith("| ")]
        rows = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]
        assert len({len(row) for row in rows}) <= 1
        if rows:
            title = section.splitlines()[0]
            tables[title] = {row[0]: dict(zip(rows[0], row, strict=True)) for row in rows[2:]}
    return tables


def test_markdown_shows_every_measured_value_with_its_unit() -> None:
    markdown = markdown_text(_ledger())
    tables = _tables(markdown)
    assert list(tables) == ["Size", "Compression", "Speed", "Cold start", "Memory", "Accuracy", "How measured"]
    assert "Not measured here: frames to word, streaming, energy, robustness." in markdown
    assert tables["Size"]["dense"] == {
        "variant": "dense", "method": "dense fp32", "parameters, k": "900.0", "compute, MMAC": "123.4",
        "file, kB": "3,612", "resident weights, kB": "3,590", "int8 share of MACs, %": "0.0",
    }  # fmt: skip
    assert tables["Compression"]["phm4"]["parameters, x smaller"] == "1.00"
    assert tables["Speed"]["phm4"] == {
        "variant": "phm4", "latency p50, ms": "2.00 [1.90, 2.10]", "latency p90, ms": "3.00 [2.90, 3.10]",
        "p50 to the first row, ratio": "1.00 [0.98, 1.02]",
    }  # fmt: skip
    assert tables["Cold start"]["phm4"]["cold start, ms"] == "412"
    assert tables["Memory"]["phm4"]["peak memory, MiB"] == "61.3"
    assert tables["Accuracy"]["phm4"] == {
        "variant": "phm4", "top-1, %": "92.0 [92.0, 93.9]", "top-5, %": "99.0 [98.5, 99.3]",
        "drop of top-1 to the first row, points": "0.00 [-0.10, 1.10]", "McNemar p": "< 0.001", "clips": "2,500",
    }  # fmt: skip
    assert tables["How measured"]["noisy (NOISY)"] == {
        "variant": "noisy (NOISY)", "engine": "ort", "precision": "fp32", "threads": "1", "launches": "5",
        "badge": "NOISY", "bundle sha256": "abababababab", "sitting": "A",
    }  # fmt: skip
    assert tables["Memory"]["phm4-int8"]["peak memory, MiB"] == "—"
    assert tables["Accuracy"]["dense"]["McNemar p"] == "—"
    for expected in (
        "nearest-rank",
        "Wilson 95 %",
        "paired on the same clips",
        "- cpu: Two-core CPU",
        "Synthetic mouths.",
    ):
        assert expected in markdown


def test_every_key_of_a_row_reaches_the_markdown() -> None:
    whole = markdown_text(Ledger.from_rows({}, [make_row("dense")]))
    for each in fields(LedgerRow):
        if each.name not in make_row("x") or each.name == "badge":
            continue
        changed = "changed" if isinstance(make_row("x")[each.name], str) else 77
        assert markdown_text(Ledger.from_rows({}, [{**make_row("dense"), each.name: changed}])) != whole, each.name


def test_every_newer_key_of_a_row_reaches_the_markdown_and_the_csv() -> None:
    plain = Ledger.from_rows({}, [make_row("dense")])
    newer = {
        "device": "orin", "target": "ort int8 2t", "energy_boundary": "rails", "command": "edgelip bench a.toml",
        "reasons": ["SingleStream NOISY: clocks"],
        "figures": {name: {"value": 7.0, "low": 6.0, "high": 8.0} for name in (*METRICS, "robust_blur_pct")},
    }  # fmt: skip
    newer["figures"] = {name: each for name, each in newer["figures"].items() if name not in make_row("x")}  # type: ignore[attr-defined]
    for key, value in newer.items():
        ledger = Ledger.from_rows({}, [{**make_row("dense"), key: value}])
        assert Ledger.from_json(ledger.to_json()) == ledger
        assert csv_text(ledger) != csv_text(plain)
        for name, each in value.items() if isinstance(value, dict) else []:
            alone = Ledger.from_rows({}, [{**make_row("dense"), "figures": {name: each}}])
            assert markdown_text(alone) != markdown_text(plain), name
        assert markdown_text(ledger) != markdown_text(plain), key


def test_figures_beyond_the_old_columns_are_shown_with_their_intervals() -> None:
    figures = {
        "latency_p99_ms": {"value": 4.0, "low": 3.5, "high": 5.0}, "energy_gross_j": {"value": 0.02},
        "robust_dropped_10_pct": {"value": 80.0, "low": 78.0, "high": 82.0}, "miss_pct": {"value": 0.5},
    }  # fmt: skip
    rows = [{**make_row("dense"), "figures": figures}, make_row("phm4")]
    ledger = Ledger.from_rows({}, rows)
    tables = _tables(markdown_text(ledger))
    assert tables["Speed"]["dense"]["latency p99, ms"] == "4.00 [3.50, 5.00]"
    assert tables["Speed"]["phm4"]["latency p99, ms"] == "—"
    assert tables["Energy"]["dense"]["energy, gross, mJ"] == "20.00"
    assert tables["Robustness"]["dense"]["top-1 at dropped 10, %"] == "80.0 [78.0, 82.0]"
    assert tables["Streaming"]["dense"]["deadlines missed, %"] == "0.50"
    assert unmeasured_of(ledger) == ("Frames to word",)
    (column,) = [each for each in sections_of(ledger)["Energy"] if each.name == "energy_gross_j"]
    assert column.number is not None
    assert [column.number(row) for row in ledger.rows] == [0.02, None]
    first = next(csv.DictReader(io.StringIO(csv_text(ledger))))
    assert (first["latency_p99_ms"], first["latency_p99_low_ms"], first["latency_p99_high_ms"]) == ("4.0", "3.5", "5.0")
    assert "missed," in terminal_text(ledger)


def test_a_compression_factor_is_of_its_column_and_of_its_own_recipe() -> None:
    rows = [make_row("a/dense"), make_row("a/small", file_bytes=25_000), make_row("b/dense", file_bytes=50_000)]
    table = _tables(markdown_text(Ledger.from_rows({}, rows)))["Compression"]
    assert [table[row["variant"]]["file, x smaller"] for row in rows] == ["1.00", "4.00", "1.00"]
    assert table["a/small"]["parameters, x smaller"] == "1.00"


def test_energy_is_an_objective_only_where_all_have_it() -> None:
    slow = {**make_row("frugal", latency_p50_ms=9.0), "figures": {"energy_gross_j": {"value": 0.01}}}
    fast = {**make_row("fast"), "figures": {"energy_gross_j": {"value": 0.02}}}
    front, names = front_of(Ledger.from_rows({}, [slow, fast]))
    assert ([row.variant for row in front], names[-1]) == (["frugal", "fast"], "energy_gross_j")
    front, names = front_of(Ledger.from_rows({}, [slow, fast, make_row("bare", top1_pct=50.0)]))
    assert ([row.variant for row in front], names[-1]) == (["fast"], "latency_p50_ms")


def test_the_reasons_of_a_badge_stand_below_the_table() -> None:
    row = {**make_row("noisy", badge="NOISY"), "reasons": ["SingleStream NOISY: clocks moved by 9 %"]}
    assert "noisy: SingleStream NOISY: clocks moved by 9 %" in terminal_text(Ledger.from_rows({}, [row]))


def test_a_row_that_is_not_valid_comes_last_and_off_the_front() -> None:
    ledger = _ledger()
    sentence = "On the Pareto front of top-1, file size and latency p50: dense, phm4, phm4-int8."
    for text in (markdown_text(ledger), terminal_text(ledger)):
        assert sentence in text
    alone = Ledger.from_rows({}, [make_row("noisy", badge="NOISY")])
    said = " ".join(terminal_text(alone).split())
    assert "latency p50: none, no row with all three measured is VALID. Of top-1 and file size, " in said
    assert said.rstrip().endswith("whatever the machine did: noisy.")
    assert list(_tables(markdown_text(ledger))["Size"])[-1] == "noisy (NOISY)"
    assert [row["variant"] for row in csv.DictReader(io.StringIO(csv_text(ledger)))][-1] == "noisy"


def test_nothing_measured_is_a_dash_everywhere() -> None:
    unknown = {name: None for name in make_row("x") if name != "variant"}
    ledger = Ledger.from_rows({}, [{"variant": "x", **unknown}])
    for table in _tables(markdown_text(ledger)).values():
        (row,) = table.values()
        assert set(list(row.values())[1:]) == {"—"}
    assert "none with all three measured" in terminal_text(ledger)
    assert {*next(csv.DictReader(io.StringIO(csv_text(ledger)))).values()} == {"x", ""}


def test_the_terminal_table_fits_100_columns_with_large_numbers_and_long_names() -> None:
    large = make_row(
        "pruned-40-phm-n4-int8-entropy-coded",
        parameters=36_400_000,
        file_bytes=145_600_000,
        resident_weights_bytes=145_500_000,
        latency_p50_ms=1234.56,
        latency_p50_low_ms=1230.1,
        latency_p50_high_ms=1299.9,
        peak_memory_mib=1024.5,
        top1_drop_low_points=-10.25,
        top1_drop_high_points=10.25,
        int8_coverage_pct=100.0,
        badge="UNCONTROLLED",
    )
    text = terminal_text(Ledger.from_rows(HEADER, [make_row("dense"), large]))
    assert max(map(len, text.splitlines())) <= 100
    assert "1,230.10..1,299.90" in text
    assert "-10.25..10.25" in text
    assert "…" not in text
    assert "\x1b" not in text


def test_a_name_with_table_or_markup_signs_is_shown_as_it_is() -> None:
    ledger = Ledger.from_rows({"recipe": "a\nb"}, [make_row("[red]x|y", method="two\nlines")])
    assert "[red]x|y" in terminal_text(ledger)
    assert "| [red]x\\|y | two lines |" in markdown_text(ledger)
    assert "- Recipe: `a b`" in markdown_text(ledger)


def test_csv_holds_raw_numbers_under_full_names() -> None:
    first = next(csv.DictReader(io.StringIO(csv_text(_ledger()))))
    values = make_row("dense", file_bytes=3_612_345, resident_weights_bytes=3_590_000, mcnemar_p=None)
    assert list(first)[: len(values)] == list(values)
    expected = {name: "" if value is None else str(value) for name, value in values.items()}
    assert {name: first[name] for name in values} == expected


def test_the_files_are_written_and_repeat_to_the_byte(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="the plot needs matplotlib")
    first = {path.name: path.read_bytes() for path in write_report(_ledger(), tmp_path / "a")}
    second = {path.name: path.read_bytes() for path in write_report(_ledger(), tmp_path / "b")}
    assert first == second
    assert list(first) == ["tradeoff.md", "tradeoff.csv", "tradeoff.json", "tradeoff.png"]
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == sorted(first)
    assert Ledger.from_json(first["tradeoff.json"]) == _ledger()
    assert json.loads(first["tradeoff.json"])["rows"][0]["variant"] == "noisy"
    assert first["tradeoff.md"].decode() == markdown_text(_ledger())


def test_without_matplotlib_the_texts_are_written_and_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(MissingError, match=r'matplotlib cannot be imported here .* pip install "edgelip\[report\]"'):
        write_report(_ledger(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tradeoff.csv", "tradeoff.json", "tradeoff.md"]


def test_importing_the_report_loads_neither_matplotlib_nor_rich() -> None:
    code = "import sys, edgelip.report.tradeoff; print(sorted({'matplotlib', 'rich', 'torch'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
