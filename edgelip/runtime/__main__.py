"""`python -m edgelip.runtime check|predict|build|bench BUNDLE`: a bundle on a device, with numpy and one engine.

`python -m edgelip.runtime doctor` says what the device has and lacks for that.

stdout carries the result, stderr the progress; exit codes are those of edgelip.runtime.errors.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from edgelip.runtime.errors import ClipError, EdgelipError, MeasurementError, MissingError, UsageError

_CLIPS_LIMIT_BYTES = 64 << 30


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one verb; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        if options.run is not _doctor:
            _require_numpy()
        return int(options.run(options))
    except EdgelipError as error:
        print(f"edgelip: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        # The reader of stdout left, as in `| head`; nothing more can be said to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except MemoryError:
        print("edgelip: there is not enough memory on this machine for this bundle and these clips.", file=sys.stderr)
        return MissingError.exit_code
    except KeyboardInterrupt:
        print("edgelip: interrupted", file=sys.stderr)
        return 130


def _doctor(options: argparse.Namespace) -> int:
    from edgelip.runtime.doctor import doctor, lines

    report = doctor()
    _print_json(report) if options.json else print("\n".join(lines(report)))
    return 0


def _check(options: argparse.Namespace) -> int:
    from edgelip.runtime.check import check

    results = check(options.bundle, threads=options.threads, **_chosen(options))
    if options.json:
        _print_json([result.to_json() for result in results])
    else:
        print("\n".join(result.line() for result in results))
    return 0


def _predict(options: argparse.Namespace) -> int:
    import numpy as np

    from edgelip.runtime.arrays import open_array
    from edgelip.runtime.bundle import Bundle
    from edgelip.runtime.clip_file import ARRAY_NAMES, clip_batches
    from edgelip.runtime.recogniser import Recogniser

    chosen = _chosen(options)
    bundle = Bundle.open(options.bundle, required_key=chosen.pop("required_key"))
    with Recogniser(bundle, threads=options.threads, **chosen) as recogniser:
        parts = []
        try:
            with open_array(Path(options.clips), ARRAY_NAMES) as stream:
                num_clips, batches = clip_batches(
                    stream, bundle.manifest.clip, size=options.batch, limit_bytes=_CLIPS_LIMIT_BYTES
                )
                for clips in batches:
                    parts.append(recogniser.logits(clips, options.batch))
                    if num_clips > options.batch:
                        _progress(f"{sum(map(len, parts))}/{num_clips} clips", last=sum(map(len, parts)) == num_clips)
        except ValueError as error:
            if isinstance(error, EdgelipError) and not isinstance(error, ClipError):
                raise
            raise ClipError(f"{options.clips}: {error}") from error
        logits_BV = np.concatenate(parts)
        if options.logits:
            _write_logits(Path(options.logits), logits_BV)
            summary = {
                "bundle": bundle.name,
                "num_clips": len(logits_BV),
                "logits": str(options.logits),
                "settings": recogniser.settings,
            }
            _print_json(summary) if options.json else print(f"{len(logits_BV)} clips of logits in {options.logits}")
            return 0
        predictions = [recogniser.prediction_from_logits(row_V, top=options.top) for row_V in logits_BV]
    if options.json:
        _print_json({"bundle": bundle.name, "clips": [prediction.to_json() for prediction in predictions]})
        return 0
    for index, prediction in enumerate(predictions):
        ranking = "  ".join(f"{word} {100 * probability:.1f} %" for word, probability in prediction.ranking)
        print(f"{index}  {ranking}")
    return 0


def _build(options: argparse.Namespace) -> int:
    from edgelip.runtime.artefact import build_artefact
    from edgelip.runtime.bundle import Bundle
    from edgelip.runtime.engines.engine import engine_class

    chosen = _chosen(options)
    engine_class(options.engine)  # a missing package is said before anything large is read
    bundle = Bundle.open(options.bundle, required_key=chosen.pop("required_key"))
    precisions = [chosen.pop("precision")]
    if precisions == [None]:
        precisions = list(bundle.precisions_for(options.engine))
    built = []
    for precision in precisions:
        say = _teller("build")
        built.append(build_artefact(bundle, precision=precision, say=say, **chosen))
    if options.json:
        _print_json([artefact.to_json() for artefact in built])
    else:
        print("\n".join(artefact.line() for artefact in built))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from edgelip.runtime.bench import Effort, bench

    effort = Effort(
        seconds=options.seconds,
        min_count=options.min_count,
        warm_up_cap_s=options.warm_up_cap,
        energy_s=options.energy,
    )
    command = f"python -m edgelip.runtime bench {options.bundle} --engine {options.engine} --threads {options.threads}"
    command += "".join(f" --option {option}" for option in options.option)
    run = bench(
        options.bundle,
        threads=options.threads,
        **_chosen(options),
        effort=effort,
        started_ns=options.started_ns,
        command=f"{command} --seconds {options.seconds:g}",
        say=_teller("bench"),
    )
    if options.output:
        _write(Path(options.output), json.dumps(run.to_json()).encode())
    if options.json and not options.output:
        _print_json(run.to_json())
    elif options.json:
        _print_json([measurement.to_json() for measurement in run.measurements()])
    else:
        print(f"{run.bundle}: {run.precision} on {run.engine}, {run.threads} threads, batch 1: {run.badge}")
        for measurement in run.measurements():
            value = f"{measurement.value:10.3f} {measurement.unit}"
            print(f"  {measurement.name:20} {value}  (n {measurement.num_samples})")
    for reason in run.reasons:
        print(f"edgelip: {run.badge}: {reason}", file=sys.stderr)
    if options.strict and run.badge != "VALID":
        raise MeasurementError(f"the measurement of {run.bundle} is {run.badge}: {'; '.join(run.reasons)}.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m edgelip.runtime", description=_first_line(__doc__))
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

    verb = verbs.add_parser("check", parents=[shared], help="is the bundle whole, and does it compute what it should?")
    verb.set_defaults(run=_check)

    verb = verbs.add_parser("predict", parents=[shared], help="words of clips, with probabilities")
    clips_help = ".npz (array 'frames' or 'data') or .npy: uint8 (B, T, H, W); of a sign float (T, 543, 3)"
    verb.add_argument("clips", metavar="CLIPS", help=clips_help)
    verb.add_argument("--top", type=_whole, default=3, help="words a clip (default: 3)")
    verb.add_argument("--batch", type=_whole, default=16, help="clips at a time (default: 16)")
    verb.add_argument("--logits", metavar="OUT.npy", help="write float32 scores (B, V) instead of words")
    verb.set_defaults(run=_predict)

    verb = verbs.add_parser("build", parents=[shared], help="make of the ONNX file what runs on this kind of device")
    verb.set_defaults(run=_build)

    verb = verbs.add_parser("bench", parents=[shared], help="cold start, memory and latency in this process")
    verb.add_argument("--seconds", type=float, default=3.0, help="measure at least this long (default: 3)")
    verb.add_argument("--min-count", type=_whole, default=64, help="measure at least so many clips (default: 64)")
    verb.add_argument("--warm-up-cap", type=float, default=10.0, help="longest warm-up in s (default: 10)")
    verb.add_argument("--energy", type=float, default=0.0, metavar="S", help="then run S seconds with a power sensor")
    verb.add_argument("--started-ns", type=int, help="monotonic clock when this process was spawned")
    verb.add_argument("--strict", action="store_true", help="exit 6 unless the measurement is valid")
    verb.add_argument("-o", "--output", metavar="FILE", help="write every raw sample as JSON")
    verb.set_defaults(run=_bench)

    verb = verbs.add_parser("doctor", help="what is here, what is missing, and the command that mends it")
    verb.add_argument("--json", action="store_true", help="result as JSON on stdout")
    verb.set_defaults(run=_doctor)
    return parser


def _chosen(options: argparse.Namespace) -> Dict[str, Any]:
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


def _teller(verb: str) -> Callable[[str], None]:
    return lambda line: print(f"{verb}: {line}", file=sys.stderr)


def _whole(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text}; expected 1 or more")
    return number


def _first_line(text: Optional[str]) -> str:
    return (text or "").splitlines()[0]


def _require_numpy() -> None:
    try:
        import numpy  # noqa: F401
    except ImportError as error:
        raise MissingError("numpy is not installed; edgelip.runtime needs it. pip install numpy") from error


def _print_json(result: Any) -> None:
    print(json.dumps(result, indent=1))


def _progress(line: str, *, last: bool) -> None:
    if sys.stderr.isatty():
        print(f"\rpredict: {line}", end="\n" if last else "", file=sys.stderr, flush=True)
    elif last:
        print(f"predict: {line}", file=sys.stderr)


def _write_logits(path: Path, logits_BV: Any) -> None:
    import io

    import numpy as np

    content = io.BytesIO()
    np.save(content, logits_BV)
    _write(path, content.getvalue())


def _write(path: Path, content: bytes) -> None:
    """Whole or not at all. Raises MissingError where the disk or a permission forbids it."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise MissingError(f"{path} cannot be written ({error.strerror}). Choose another place.") from error


if __name__ == "__main__":
    sys.exit(main())
