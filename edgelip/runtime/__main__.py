"""`python -m edgelip.runtime check|predict|build|bench BUNDLE`: a bundle on a device, with numpy and one engine.

`python -m edgelip.runtime doctor` says what the device has and lacks for that.

stdout carries the result, stderr the progress; exit codes are those of edgelip.runtime.errors.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Sequence

from edgelip.runtime.arguments import chosen, make_parser
from edgelip.runtime.errors import ClipError, EdgelipError, MeasurementError, MissingError, UsageError

_CLIPS_LIMIT_BYTES = 64 << 30


def main(arguments: Optional[Sequence[str]] = None) -> int:
    """Run one verb; the exit code."""
    options = make_parser(_first_line(__doc__)).parse_args(arguments)
    try:
        if options.verb != "doctor":
            _require_numpy()
        return _VERBS[options.verb](options)
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

    results = check(options.bundle, threads=options.threads, **chosen(options))
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

    kept = chosen(options)
    bundle = Bundle.open(options.bundle, required_key=kept.pop("required_key"))
    with Recogniser(bundle, threads=options.threads, **kept) as recogniser:
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

    kept = chosen(options)
    engine_class(options.engine)  # a missing package is said before anything large is read
    bundle = Bundle.open(options.bundle, required_key=kept.pop("required_key"))
    precisions = [kept.pop("precision")]
    if precisions == [None]:
        precisions = list(bundle.precisions_for(options.engine))
    built = []
    for precision in precisions:
        say = _teller("build")
        built.append(build_artefact(bundle, precision=precision, say=say, **kept))
    if options.json:
        _print_json([artefact.to_json() for artefact in built])
    else:
        print("\n".join(artefact.line() for artefact in built))
    return 0


def _bench(options: argparse.Namespace) -> int:
    from edgelip.runtime.bench import bench
    from edgelip.runtime.effort import Effort
    from edgelip.runtime.measurement import SINGLE_STREAM

    effort = Effort(
        seconds=options.seconds,
        min_count=options.min_count,
        warm_up_cap_s=options.warm_up_cap,
        energy_s=options.energy,
        clips_per_query=options.clips_per_query,
        batch=options.batch,
        fps=options.fps,
        hop_frames=options.hop_frames,
    )
    scenario = options.scenario or SINGLE_STREAM
    if options.output and Path(options.output).suffix != ".json":
        raise UsageError(f"--output is {options.output}; expected FILE.json: the samples go into FILE.npz beside it.")
    if options.output and not Path(options.output).parent.is_dir():  # known before minutes of measuring
        folder = Path(options.output).parent
        raise UsageError(f"--output is {options.output}; its folder {folder} is not there. Make it or choose another.")
    run = bench(
        options.bundle,
        threads=options.threads,
        **chosen(options),
        effort=effort,
        scenario=scenario,
        drop_cache=options.drop_page_cache,
        started_ns=options.started_ns,
        command=_bench_command(options, effort.options(scenario)),
        say=_teller("bench"),
    )
    if options.output:
        run.write(options.output)
    if options.json and not options.output:
        _print_json(run.to_json())
    elif options.json:
        _print_json([measurement.to_json() for measurement in run.measurements()])
    else:
        clips = "1 clip" if run.batch == 1 else f"{run.batch} clips"
        how = f"{run.scenario}, {run.precision} on {run.engine}, {run.threads} threads, {clips} a query"
        print(f"{run.bundle}: {how}: {run.badge}")
        for measurement in run.measurements():
            value = f"{measurement.value:10.3f} {measurement.unit}"
            print(f"  {measurement.name:25} {value}  (n {measurement.num_samples})")
    for reason in run.reasons:
        print(f"edgelip: {run.badge}: {reason}", file=sys.stderr)
    if options.strict and run.badge != "VALID":
        raise MeasurementError(f"the measurement of {run.bundle} is {run.badge}: {'; '.join(run.reasons)}.")
    return 0


def _bench_command(options: argparse.Namespace, effort: Sequence[str]) -> str:
    """What repeats this run."""
    words = ["python", "-m", "edgelip.runtime", "bench", options.bundle, "--engine", options.engine]
    words += ["--precision", options.precision] if options.precision else []
    words += ["--threads", str(options.threads), *(word for pair in options.option for word in ("--option", pair))]
    words += [*effort, *(["--drop-page-cache"] if options.drop_page_cache else [])]
    return " ".join(shlex.quote(word) for word in words)


def _windows(options: argparse.Namespace) -> int:
    from edgelip.runtime.windows import obey

    # The answers have a descriptor of their own: what an engine prints to stdout must not be taken for one.
    with os.fdopen(os.dup(1), "wb") as told:
        os.dup2(2, 1)
        obey(options.bundle, sys.stdin.buffer, told, threads=options.threads, cpu=options.cpu, **chosen(options))
    return 0


_VERBS: Dict[str, Callable[[argparse.Namespace], int]] = {
    "check": _check,
    "predict": _predict,
    "build": _build,
    "bench": _bench,
    "windows": _windows,
    "doctor": _doctor,
}


def _teller(verb: str) -> Callable[[str], None]:
    return lambda line: print(f"{verb}: {line}", file=sys.stderr)


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

    from edgelip.runtime.plain_files import write_plain

    content = io.BytesIO()
    np.save(content, logits_BV)
    write_plain(path, content.getvalue())


if __name__ == "__main__":
    sys.exit(main())
