"""Many tasks at once: in this process, in local processes (joblib), or on a Ray cluster through joblib."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from edgelip.errors import DeviceError, MissingError, UsageError
from edgelip.registry import require

LOCAL_CLUSTER = "local"
_CONNECT_S = 10.0
Result = TypeVar("Result")


@dataclass(frozen=True)
class Workers:
    """num: how many at once; of a cluster's address all its processors if 0.

    cluster: address of a running Ray cluster ("auto", "ray://head:10001"), "local" to start one of `num` workers on
    this machine, None for processes without Ray.
    """

    num: int = 1
    cluster: str | None = None

    def __post_init__(self) -> None:
        if self.num < (0 if self.cluster else 1):
            raise UsageError(f"{self.num} workers; expected at least 1.")

    def run(self, tasks: Sequence[Callable[[], Result]]) -> list[Result]:
        """Call every task, in any order; the results in the order given.

        Raises what a task raises, after the others have been stopped; MissingError where a worker dies; DeviceError
        where the cluster is not reached.
        """
        num = min(self.num, len(tasks))
        if self.cluster is None and num <= 1:
            return [task() for task in tasks]
        joblib = require("joblib", extra="train")
        jobs = [joblib.delayed(_call)(task) for task in tasks]
        try:
            if self.cluster is None:
                return list(joblib.Parallel(n_jobs=num, batch_size=1)(jobs))
            with _ray(self.cluster, self.num), joblib.parallel_config(backend="ray", n_jobs=num or -1):
                return list(joblib.Parallel(batch_size=1)(jobs))
        except Exception as error:
            if any(kind.__name__ in _DEATHS for kind in type(error).__mro__):
                raise MissingError(
                    "a worker process died: killed, or out of memory. What is finished is kept; run the same command "
                    "again to go on, with fewer --jobs if memory ran out."
                ) from error
            raise


# joblib's loky and Ray, by name: neither is imported where it is not used.
_DEATHS = ("BrokenProcessPool", "TerminatedWorkerError", "RayActorError", "WorkerCrashedError", "OutOfMemoryError")


def available_cpus() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _call(task: Callable[[], Result]) -> Result:
    """In a worker: one thread, since there are as many workers as processors."""
    try:
        import cv2
    except ImportError:
        pass
    else:
        cv2.setNumThreads(1)
    return task()


@contextmanager
def _ray(address: str, num: int) -> Iterator[None]:
    _refuse_silent(address)
    ray: Any = require("ray", extra="cluster")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is reported to anybody
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if address == LOCAL_CLUSTER:
        settings |= {"address": "local", "num_cpus": num, "include_dashboard": False}
    else:
        settings["address"] = address
    try:
        ray.init(**settings)
    except Exception as error:  # of grpc, redis, psutil, by version
        raise _unreached(address, error) from error
    try:
        from ray.util.joblib import register_ray

        register_ray()
        yield
    finally:
        ray.shutdown()


def _refuse_silent(address: str) -> None:
    """Raises DeviceError where nobody listens: Ray itself tries for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if not colon or not port.isdigit():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except (OSError, OverflowError) as error:
        raise _unreached(address, error) from error


def _unreached(address: str, error: Exception) -> DeviceError:
    reason = " ".join(str(error).split())[:200]
    return DeviceError(
        f"the Ray cluster {address!r} is not reached ({reason}). Start one with `ray start --head`, or give "
        "--cluster local."
    )
