"""The command line: `edgelip VERB`. stdout is the result, stderr the progress; exit codes as in edgelip.errors."""

from __future__ import annotations

import os
import sys

from edgelip.errors import EdgelipError


def main() -> None:
    """Run a verb; a user's mistake ends in one line and its exit code, never in a traceback."""
    from edgelip.cli.verbs import app

    try:
        app(prog_name="edgelip")
    except EdgelipError as error:
        print(f"edgelip: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("edgelip: interrupted; the same command goes on from here.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # the reader of stdout has gone, as in `edgelip ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
