"""From a typed ONNX file to a TensorRT plan: one builder for tensorrt 10.x, 11.x and tensorrt_rtx.

`trt` is the imported module. Precision is what the file says (casts, Q/DQ): networks are strongly typed. Members that
came or went between versions are asked for by name; an option that needs a missing one is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

from edgelip.runtime.engines.engine import Say, first_line
from edgelip.runtime.engines.trt_log import Transcript, make_logger, make_monitor, one_line
from edgelip.runtime.engines.trt_options import DEFAULT_BATCH, PlanOptions
from edgelip.runtime.errors import BundleError, EdgelipError, MissingError, UsageError
from edgelip.runtime.plain_files import read_plain

TIMING_CACHE_LIMIT_BYTES = 64 << 20
_MAX_PARSER_ERRORS = 20
_OLDEST = (10, 0)


@dataclass(frozen=True)
class Plan:
    """A built plan. timing_cache: kernel times measured here and before, empty where TensorRT keeps none."""

    content: Any  # bytes-like; it may be larger than what one would copy
    timing_cache: bytes
    settings: Dict[str, str]


def require_supported(trt: Any, package: str) -> None:
    """Raises MissingError for a TensorRT that cannot build strongly typed networks."""
    version = tuple(int(part) for part in re.findall(r"\d+", trt.__version__)[:2])
    if package == "tensorrt" and version < _OLDEST:
        raise MissingError(
            f"tensorrt is {trt.__version__}; expected 10.0 or newer. Upgrade the board to JetPack 6 or newer, or run "
            "the bundle with ONNX Runtime (--engine ort)."
        )


def compute_capabilities(trt: Any) -> Dict[str, Any]:
    """What can be built for ahead of time: {'86': ComputeCapability.SM86, ...}; only TensorRT-RTX has any."""
    members: Dict[str, Any] = trt.ComputeCapability.__members__
    known = {int(name[2:]): member for name, member in members.items() if re.fullmatch(r"SM\d+", name)}
    return {str(number): known[number] for number in sorted(known)}


def build_plan(trt: Any, onnx: bytes, name: str, chosen: PlanOptions, *, say: Say) -> Plan:
    """Build the ONNX file `name` with content `onnx`.

    Raises BundleError with TensorRT's own first error if it refuses the file, UsageError for an option that this
    version lacks.
    """
    transcript = Transcript(say)
    logger = make_logger(trt, transcript)
    try:
        builder = trt.Builder(logger)
        network = builder.create_network(_network_flags(trt))
        parser = trt.OnnxParser(network, logger)  # it owns the weights that the network points to
        _parse(parser, onnx, name)
        config = builder.create_builder_config()
        batch = _set_batch(trt, builder, config, network, chosen, name)
        settings = {
            "strongly_typed": "yes",
            "batch": "/".join(map(str, batch)),
            **_configure(trt, config, chosen),
        }
        # TensorRT-RTX measures no kernels when it builds, and with a cache it would ask for a GPU.
        cache = None if hasattr(trt, "ComputeCapability") else _attach_timing_cache(config, chosen)
        if hasattr(trt, "IProgressMonitor"):
            monitor = make_monitor(trt, transcript)
            config.progress_monitor = monitor
        say(f"building {name} for {settings['batch']} clips (fewest/best/most), workspace: {settings['workspace']}")
        content = builder.build_serialized_network(network, config)
    except EdgelipError:
        raise
    except (TypeError, RuntimeError, ValueError) as error:  # TypeError: its bindings say so of a null pointer
        transcript.raise_thrown()
        raise BundleError(f"TensorRT cannot build {name}: {transcript.first_error()} ({first_line(error)})") from error
    transcript.raise_thrown()
    if content is None:
        raise BundleError(f"TensorRT cannot build {name}: {transcript.first_error()}")
    return Plan(content, b"" if cache is None else bytes(cache.serialize()), settings)


def _network_flags(trt: Any) -> int:
    # Always on since 11, and a version may come that has no such flag any more.
    typed = trt.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    return 0 if typed is None else 1 << int(typed)


def _parse(parser: Any, onnx: bytes, name: str) -> None:
    if parser.parse(onnx):
        return
    errors: List[str] = []
    for index in range(min(parser.num_errors, _MAX_PARSER_ERRORS)):
        error = parser.get_error(index)
        node = " ".join(part for part in (error.node_operator(), error.node_name()) if part)
        errors.append(f"{node}: {one_line(error.desc())}" if node else one_line(error.desc()))
    raise BundleError(f"TensorRT cannot read {name}: {'; '.join(errors) or 'it gives no reason'}")


def _set_batch(
    trt: Any, builder: Any, config: Any, network: Any, chosen: PlanOptions, name: str
) -> Tuple[int, int, int]:
    """Bound the free batch by a profile; what (fewest, best, most) clips the plan then takes."""
    if network.num_inputs != 1:
        raise BundleError(f"{name} has {network.num_inputs} inputs; expected one, clips (B, 1, T, H, W).")
    clips = network.get_input(0)
    shape = tuple(int(length) for length in clips.shape)
    if not shape or any(length < 1 for length in shape[1:]):
        raise BundleError(f"{name} takes {shape}; expected every axis but the batch to be fixed. Export it again.")
    if shape[0] >= 0:
        if chosen.batch not in (None, (shape[0],) * 3):
            raise UsageError(f"{name} has a fixed batch of {shape[0]}; leave min_batch, opt_batch and max_batch out.")
        return shape[0], shape[0], shape[0]
    batch = chosen.batch or DEFAULT_BATCH
    profile = builder.create_optimization_profile()
    profile.set_shape(clips.name, *[(length, *shape[1:]) for length in batch])
    config.add_optimization_profile(profile)
    return batch


def _configure(trt: Any, config: Any, chosen: PlanOptions) -> Dict[str, str]:
    """Set all that was chosen; the same as words for the record."""
    workspace = "no limit set"
    if chosen.workspace_mib is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, chosen.workspace_mib << 20)
        workspace = f"at most {chosen.workspace_mib} MiB"
    if chosen.builder_optimization_level is not None:
        config.builder_optimization_level = chosen.builder_optimization_level
    flags = {
        "TF32": ("tf32", chosen.tf32),
        "SPARSE_WEIGHTS": ("sparse", chosen.sparse),
        "STRIP_PLAN": ("weight_stripped", chosen.weight_stripped),
        # REFIT may drop the bias of a product in 11.3; this one promises the same weights again.
        "REFIT_IDENTICAL": ("weight_stripped", chosen.weight_stripped),
        "VERSION_COMPATIBLE": ("version_compatible", chosen.version_compatible),
    }
    for flag, (option, wanted) in flags.items():
        if wanted:
            config.set_flag(_member(trt, "BuilderFlag", flag, f"{option}=yes"))
    if not chosen.tf32 and "TF32" in trt.BuilderFlag.__members__:
        config.clear_flag(trt.BuilderFlag.TF32)  # the one flag that TensorRT sets by itself
    if chosen.hardware_compatible != "no":
        level = chosen.hardware_compatible.upper()
        option = f"hardware_compatible={chosen.hardware_compatible}"
        config.hardware_compatibility_level = _member(trt, "HardwareCompatibilityLevel", level, option)
    if hasattr(trt, "ComputeCapability"):
        config.num_compute_capabilities = 1
        config.set_compute_capability(_capability(trt, chosen.sm), 0)
    config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # layers by name, no cost when running
    return {
        "workspace": workspace,
        "builder_optimization_level": str(config.builder_optimization_level),
        "hardware_compatible": chosen.hardware_compatible,
        "profiling_verbosity": "DETAILED",
        **{option: "yes" if wanted else "no" for option, wanted in flags.values()},
    }


def _capability(trt: Any, sm: Optional[str]) -> Any:
    return trt.ComputeCapability.CURRENT if sm is None else compute_capabilities(trt)[sm]


def _attach_timing_cache(config: Any, chosen: PlanOptions) -> Any:
    """The cache that the build reads and fills, from the file that was named if any."""
    content, path = b"", chosen.timing_cache
    if path is not None:
        if not path.is_file():
            raise UsageError(
                f"Option timing_cache is {str(path)!r}, which is no file. Leave it out, a new one is made."
            )
        try:
            content = read_plain(path, limit_bytes=TIMING_CACHE_LIMIT_BYTES)
        except BundleError as error:
            raise UsageError(f"Option timing_cache: {error}") from error
    cache = config.create_timing_cache(content)
    if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
        raise UsageError(f"Option timing_cache: TensorRT refuses {path}. Leave it out, a new one is made.")
    return cache


def _member(trt: Any, enum: str, name: str, option: str) -> Any:
    members = getattr(trt, enum).__members__
    if name not in members:
        what = f"TensorRT {trt.__version__} has no {enum}.{name}"
        raise UsageError(f"{what}, which option {option} needs. Leave the option out, or use a version that has it.")
    return members[name]
