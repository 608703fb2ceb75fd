"""`edgelip pack`: a bundle with all that runs it, as one file or folder."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path


def pack_bundle(bundle: Path, *, out: Path, wheels: Sequence[Path], with_engines: bool, as_json: bool) -> str:
    """Write the pack and say what it is and how it is run. Raises what edgelip.deploy.pack.write_pack raises."""
    from edgelip.deploy.pack import SUFFIX, write_pack
    from edgelip.runtime.bundle import Bundle

    opened = Bundle.open(bundle)
    write_pack(bundle, out, wheels=wheels, with_engines=with_engines)
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    result = {
        "pack": str(out),
        "bundle": opened.name,
        "bundle_sha256": opened.sha256,
        "num_files": len(files),
        "bytes": sum(path.stat().st_size for path in files),
        "wheels": [wheel.name for wheel in wheels],
        "run": f"python3 {out.name if out.suffix == SUFFIX else f'{out.name}/run.py'} check",
    }
    if as_json:
        return json.dumps(result, indent=1)
    needs = "Python 3.8" if wheels else "Python 3.8, numpy and an engine such as onnxruntime"
    return f"{out}\n{opened.name}, {result['bytes']:,} bytes; on the device, with {needs}: {result['run']}"
