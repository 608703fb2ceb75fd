from __future__ import annotations

from pathlib import Path

import pytest
from fake_board import write_tree

from edgelip.runtime.sensors import process as sensors

ROLLUP = "55d0-7ffd ---p 00 [rollup]\nRss: 9000 kB\nPss: 4096 kB\nPrivate_Clean: 1024 kB\nPrivate_Dirty: 2048 kB\n"
CLIENTS = (
    "CLIENT PROCESS PID SIZE\nuser python3 4242 204800K\nuser Xorg 17 51200K\nuser python3 4242 1024K\ntotal 257024K\n"
)


def test_shared_memory_is_split_and_left_out(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"proc/self/smaps_rollup": ROLLUP})
    assert sensors.shared_memory_mib(root) == {"pss": 4.0, "uss": 3.0}
    assert sensors.shared_memory_mib(tmp_path / "other") == {"pss": None, "uss": None}


def test_available_memory_is_not_the_free_memory(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"proc/meminfo": "MemTotal: 8192000 kB\nMemFree: 1024 kB\nMemAvailable: 4194304 kB"})
    assert sensors.available_memory_mib(root) == 4096.0
    assert sensors.available_memory_mib(tmp_path / "other") is None


def test_gpu_mapped_memory_is_that_of_one_process(tmp_path: Path) -> None:
    root = write_tree(tmp_path, {"sys/kernel/debug/nvmap/iovmm/clients": CLIENTS})
    assert sensors.gpu_mapped_memory_mib(root, pid=4242) == pytest.approx(201.0)
    assert sensors.gpu_mapped_memory_mib(root, pid=1) is None
    assert sensors.gpu_mapped_memory_mib(tmp_path / "other") is None


def test_this_machine_has_memory_to_give() -> None:
    available, shared = sensors.available_memory_mib(), sensors.shared_memory_mib()
    total = sensors.environment()["memory_mib"]
    assert available is not None
    assert isinstance(total, float)
    assert 0 < available < total
    assert shared["pss"] is None or shared["uss"] is None or shared["uss"] <= shared["pss"]
