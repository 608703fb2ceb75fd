"""One table of several: the rows of exports that read the same test clips on the same machine and engine.

Times of different sittings of a machine do not compare; their rows say which sitting they come from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from string import ascii_uppercase
from typing import Any

from edgelip.errors import UsageError
from edgelip.report.ledger import Ledger, LedgerHeader, check_one_device, devices_of

SEPARATOR = "/"  # recipe/variant
_MACHINE = ("machine", "cpu", "device", "num_cpus_allowed", "int8_dot_product")
_OF_ONE_ROW = ("model",)  # engine settings that differ from row to row


def joint_ledger(ledgers: Mapping[str, Ledger], *, command: str) -> Ledger:
    """The rows of all, called recipe/variant; ratios and drops stay those to the first row of their own table.

    ledgers: by the name that goes before the variant. Raises UsageError for fewer than two, for two
    devices, and as check_test_sets and check_machines do.
    """
    if len(ledgers) < 2:
        raise UsageError(f"a joint table of {len(ledgers)} tables; expected at least 2 exports. Name another folder.")
    check_one_device(devices_of(row for ledger in ledgers.values() for row in ledger.rows), what=", ".join(ledgers))
    check_test_sets(ledgers)
    check_machines(ledgers)
    sittings = _sittings(ledgers)
    letters = list(dict.fromkeys(sittings.values()))
    rows = [
        replace(row, variant=f"{name}{SEPARATOR}{row.variant}", sitting=sittings[name] if len(letters) > 1 else None)
        for name, ledger in ledgers.items()
        for row in ledger.rows
    ]
    first = next(iter(ledgers.values())).header
    notes = [
        "Rows of several recipes: ratios and drops are to the first row of the same recipe.",
        *_sitting_notes(ledgers, sittings),
        *dict.fromkeys(note for ledger in ledgers.values() for note in ledger.header.notes),
    ]
    header = LedgerHeader(
        recipe=", ".join(ledgers),
        command=command,
        environment={key: value for key, value in first.environment.items() if key in (*_MACHINE, "system", "python")}
        | {"engine_settings": _engine_settings(first)},
        test_clips=first.test_clips,
        speakers=first.speakers,
        test_set=first.test_set,
        measured_at=first.measured_at if len(letters) == 1 else None,
        notes=tuple(notes),
    )
    return Ledger(header, tuple(rows))


def check_test_sets(ledgers: Mapping[str, Ledger]) -> None:
    """Raises UsageError unless all tables say that they read the same test clips."""
    for name, ledger in ledgers.items():
        if ledger.header.test_set is None:
            raise UsageError(
                f"the table of {name} does not say which test clips it read: an older edgelip wrote it. Export again."
            )
    (first, base), *others = ledgers.items()
    for name, ledger in others:
        if ledger.header.test_set != base.header.test_set:
            raise UsageError(
                f"{name} and {first} read different test clips: {_clips(ledger)}; {_clips(base)}. Accuracies on "
                "different clips do not compare. Give their recipes the same [data]."
            )


def check_machines(ledgers: Mapping[str, Ledger]) -> None:
    """Raises UsageError unless all rows were measured on the same machine, engine, settings and threads."""
    (first, base), *others = ledgers.items()
    expected = _place(base)
    for name, ledger in others:
        found = _place(ledger)
        for key in sorted(found.keys() | expected.keys()):
            if found.get(key) != expected.get(key):
                raise UsageError(
                    f"{name} was measured with {key} {found.get(key)}, {first} with {expected.get(key)}; their times "
                    "do not compare. Measure all in one sitting: edgelip bench --report FOLDER DIR DIR."
                )


def _place(ledger: Ledger) -> dict[str, Any]:
    environment = ledger.header.environment
    board = environment.get("board")
    return {
        **{key: environment.get(key) for key in _MACHINE},
        "board": board.get("model") if isinstance(board, Mapping) else None,
        "engine": _distinct(row.engine for row in ledger.rows),
        "threads": _distinct(row.threads for row in ledger.rows),
        **_engine_settings(ledger.header),
    }


def _engine_settings(header: LedgerHeader) -> dict[str, Any]:
    settings = header.environment.get("engine_settings")
    known = settings if isinstance(settings, Mapping) else {}
    return {key: value for key, value in known.items() if key not in _OF_ONE_ROW}


def _distinct(values: Any) -> str:
    return ", ".join(dict.fromkeys(str(value) for value in values))


def _sittings(ledgers: Mapping[str, Ledger]) -> dict[str, str]:
    """A letter for each table; tables of the same moment were measured together."""
    letters: dict[str, str] = {}
    for name, ledger in ledgers.items():
        moment = ledger.header.measured_at or name
        letters.setdefault(moment, _letter(len(letters)))
    return {name: letters[ledger.header.measured_at or name] for name, ledger in ledgers.items()}


def _letter(number: int) -> str:
    return ascii_uppercase[number] if number < len(ascii_uppercase) else f"Z{number}"


def _sitting_notes(ledgers: Mapping[str, Ledger], sittings: Mapping[str, str]) -> Sequence[str]:
    if len({*sittings.values()}) == 1:
        return []
    notes = ["Absolute times of different sittings do not compare; those of one do."]
    for name, ledger in ledgers.items():
        header = ledger.header
        load = header.environment.get("load_average")
        busy = f", load average {load:.2f}" if isinstance(load, (int, float)) else ""
        notes.append(f"Sitting {sittings[name]}: {name}, {header.measured_at or 'at an unknown time'}{busy}.")
    return notes


def _clips(ledger: Ledger) -> str:
    header = ledger.header
    said = next((note for note in header.notes if note.startswith("Test clips: ")), None)
    return said.removeprefix("Test clips: ").rstrip(".") if said else f"{header.test_clips} clips"
