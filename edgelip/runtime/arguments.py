"""The command line of `python -m edgelip.runtime`: its verbs, their options, and what all of them hand on."""

from __future__ import annotations

import argparse
from typing import Any, Dict

from edgelip.runtime.errors import UsageError


def make_parser(description: str) -> argparse.ArgumentParser:
    """Options by their names, the verb as `verb`."""
    parser = argparse.ArgumentParser(prog="python -m edgelip.runtime", description=description)
    verbs = parser.add_subparsers(dest="verb", metavar="VERB")
    verbs.required = True

    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("bundle", metavar="BUNDLE", help="folder with manifest.json")
    shared.add_argument("--engine", default="ort", help="ort, openvino, tensorrt, ...; a wrong one lists all")
    shared.add_argument("--precision", help="which model of the bundle (default: the first that the engine takes)")
    shared.add_argument("--threads", type=_whole, default=1, help="processor threads (default: 1)")
    shared.add_argument(
        "--option", action="append", default=[], metavar="NAME=VALUE", help="of the engine, such as hint=throughput"
    )
    shared.add_argument("--require-signature", metavar="KEY.pub", help="refuse a bundle that this key did not sign")
    shared.add_argument("--json", action="store_true", help="result as JSON on stdout")

    verbs.add_parser("check", parents=[shared], help="is the bundle whole, and does it compute what it should?")

    verb = verbs.add_parser("predict", parents=[shared], help="words of clips, with probabilities")
    clips_help = ".npz (array 'frames' or 'data') or .npy: uint8 (B, T, H, W); of a sign float (T, 543, 3)"
    verb.add_argument("clips", metavar="CLIPS", help=clips_help)
    verb.add_argument("--top", type=_whole, default=3, help="words a clip (default: 3)")
    verb.add_argument("--batch", type=_whole, default=16, help="clips at a time (default: 16)")
    verb.add_argument("--logits", metavar="OUT.npy", help="write float32 scores (B, V) instead of words")

    verbs.add_parser("build", parents=[shared], help="make of the ONNX file what runs on this kind of device")

    verb = verbs.add_parser("bench", parents=[shared], help="cold start, memory and time in this process")
    verb.add_argument("--seconds", type=float, default=3.0, help="measure at least this long (default: 3)")
    verb.add_argument("--min-count", type=_whole, default=64, help="measure at least so many clips (default: 64)")
    verb.add_argument("--warm-up-cap", type=float, default=10.0, help="longest warm-up in s (default: 10)")
    verb.add_argument("--energy", type=float, default=0.0, metavar="S", help="then run S seconds with a power sensor")
    scenario_help = "SingleStream (default), MultiStream, Offline, Streaming or ColdStart"
    verb.add_argument("--scenario", metavar="NAME", help=scenario_help)
    verb.add_argument("--clips-per-query", type=_whole, metavar="N", help="of MultiStream (default: 8)")
    verb.add_argument("--batch", type=_whole, metavar="N", help="of Offline, where the model takes it (default: 16)")
    verb.add_argument("--fps", type=float, help="of Streaming (default: that of the bundle's clips)")
    verb.add_argument("--hop-frames", type=_whole, metavar="N", help="of Streaming: frames a window (default: 1)")
    verb.add_argument("--drop-page-cache", action="store_true", help="read the bundle and the engine from the disk")
    verb.add_argument("--started-ns", type=int, help="monotonic clock when this process was spawned")
    verb.add_argument("--strict", action="store_true", help="exit 6 unless the measurement is valid")
    verb.add_argument("-o", "--output", metavar="FILE", help="write FILE.json, every raw sample beside it")

    verb = verbs.add_parser("windows", parents=[shared], help="be one of two that are timed in turn, asked on stdin")
    verb.add_argument("--cpu", type=int, metavar="N", help="run on this processor alone once loaded")

    verb = verbs.add_parser("doctor", help="what is here, what is missing, and the command that mends it")
    verb.add_argument("--json", action="store_true", help="result as JSON on stdout")
    return parser


def chosen(options: argparse.Namespace) -> Dict[str, Any]:
    """What all verbs hand on: which engine, model and key. Raises UsageError for an option without a value."""
    pairs = {}
    for option in options.option:
        name, equals, value = option.partition("=")
        if not equals or not name or not value:
            raise UsageError(f"--option {option} is not NAME=VALUE, as in --option hint=throughput.")
        pairs[name] = value
    return {
        "engine": options.engine,
        "precision": options.precision,
        "options": pairs,
        "required_key": options.require_signature,
    }


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected 1 or more")
    return number
