"""The command line: `edgelip VERB`. stdout is the result, stderr the progress; exit codes as in edgelip.errors."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from edgelip.errors import EdgelipError, MissingError

INTERRUPTED = 130
_GOES_ON = (("export",), ("train",), ("blame",), ("data", "prepare"))  # verbs that keep every finished step
EXTRAS = {
    "torch": "train",
    "lightning": "train",
    "safetensors": "train",
    "av": "train",
    "cv2": "train",
    "torch_pruning": "compress",
    "nncf": "compress",
    "onnx": "onnx",
    "onnxscript": "onnx",
    "onnxruntime": "ort",
    "openvino": "openvino",
    "cryptography": "sign",
    "scipy": "report",
    "matplotlib": "report",
}


def main() -> None:
    """Run a verb; a user's mistake ends in one line and its exit code, never in a traceback."""
    from edgelip.cli.verbs import app

    try:
        app(prog_name="edgelip")
    except EdgelipError as error:
        print(f"edgelip: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        remedy = f'pip install "edgelip[{EXTRAS[package]}]"'
        print(f"edgelip: {package} is not installed here; this verb needs it. Install it: {remedy}", file=sys.stderr)
        sys.exit(MissingError.exit_code)
    except SystemExit as stop:  # how typer ends, after Ctrl-C too
        if stop.code == INTERRUPTED:
            print(_interrupted(sys.argv[1:]), file=sys.stderr)
        raise
    except BrokenPipeError:  # the reader of stdout has gone, as in `edgelip ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _interrupted(words: Sequence[str]) -> str:
    """The last line after Ctrl-C: how to go on, where the verb keeps what is finished."""
    how = ""
    if tuple(words[:1]) in _GOES_ON or tuple(words[:2]) in _GOES_ON:
        how = "; the same command goes on from here"
    elif words[:1] == ["bench"] and any(word.endswith(".toml") for word in words):
        how = "; the same command with --resume goes on from here"
    return f"edgelip: interrupted{how}."
