"""What a benchmark leaves: a JSON file of numbers and a Markdown page beside it; and how it ends."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from edgelip.errors import EdgelipError
from edgelip.files import write_atomic

INTERRUPTED = 130


def save(folder: Path, stem: str, *, numbers: Mapping[str, Any], sections: Sequence[str]) -> None:
    """Write `stem`.json and `stem`.md into `folder`, which is made; each file whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / f"{stem}.json", json.dumps({"schema_version": 1, **numbers}, indent=1) + "\n")
    write_atomic(folder / f"{stem}.md", "\n\n".join(sections) + "\n")


def machine_lines(machine: Mapping[str, Any]) -> str:
    """What is known of the machine, a line each."""
    return "\n".join(f"- {key}: {value}" for key, value in machine.items() if value is not None)


def exit_code_of(run: Callable[[Sequence[str] | None], None], argv: Sequence[str] | None, *, name: str) -> int:
    """Run a benchmark: 0, or the code of the error that it ends in, which is one line on stderr."""
    try:
        run(argv)
    except EdgelipError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print(f"{name}: interrupted.", file=sys.stderr)
        return INTERRUPTED
    return 0
