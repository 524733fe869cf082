"""NVIDIA GPUs of this host, as the driver's own library (NVML) tells them: what they are, and who holds their memory.

Standard library only, because workers import it.
"""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path
from typing import Any

GIB = 1 << 30
_UNKNOWN = 2**64 - 1
_MOST = 1024
"""Processes on one GPU that are looked through."""


class _Process(ctypes.Structure):
    """NVML's nvmlProcessInfo_t."""

    _fields_ = (
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    )


class _Memory(ctypes.Structure):
    """NVML's nvmlMemory_t, in bytes."""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


def gpus() -> list[dict[str, Any]]:
    """Each GPU's name, memory and driver; none where there is no driver of NVIDIA."""
    driver = ctypes.create_string_buffer(96)
    nvml = _nvml()
    if nvml is None or nvml.nvmlSystemGetDriverVersion(driver, ctypes.c_uint(96)):
        return []
    return [
        # Rounded, as the memory of the machine is.
        {"name": _name(device), "memory_gib": round(_memory(device).total / GIB), "driver": driver.value.decode()}
        for device in _devices()
    ]


class Meter:
    """What this process holds of the memory of each GPU from now on: its context, libraries and arenas."""

    def __init__(self) -> None:
        self._before = [_memory(device).used for device in _devices()]
        self.held: dict[str, int] = {}

    def read(self) -> dict[str, int]:
        """Bytes by the name of the GPU, the most of all readings; empty where this process uses none.

        What the driver has under our process id; where it knows that by another (in a container), what the GPU's
        memory has grown by since the beginning, which is right as long as nobody else takes or leaves some.
        """
        if _uses_cuda():
            ours = [_of_process(device) for device in _devices()]
            grown = [_memory(device).used - before for device, before in zip(_devices(), self._before, strict=True)]
            for device, held in zip(_devices(), ours if any(ours) else grown, strict=True):
                if held > 0:
                    self.held[_name(device)] = max(held, self.held.get(_name(device), 0))
        return self.held


def _uses_cuda() -> bool:
    """Whether a runtime has loaded CUDA's own into this process; the driver's library doesn't tell: NVML loads it."""
    try:
        return "libcudart.so" in Path("/proc/self/maps").read_text()
    except OSError:
        return False


def _of_process(device: ctypes.c_void_p) -> int:
    """Bytes under our process id; 0 where it isn't listed."""
    nvml, count, found = _nvml(), ctypes.c_uint(_MOST), (_Process * _MOST)()
    if nvml is None or nvml.nvmlDeviceGetComputeRunningProcesses_v3(device, ctypes.byref(count), found):
        return 0
    ours = (each.used for each in found[: count.value] if each.pid == os.getpid())
    return sum(used for used in ours if used != _UNKNOWN)


def _memory(device: ctypes.c_void_p) -> _Memory:
    found, nvml = _Memory(), _nvml()
    if nvml is not None:
        nvml.nvmlDeviceGetMemoryInfo(device, ctypes.byref(found))
    return found


def _name(device: ctypes.c_void_p) -> str:
    found, nvml = ctypes.create_string_buffer(96), _nvml()
    if nvml is not None:
        nvml.nvmlDeviceGetName(device, found, ctypes.c_uint(96))
    return found.value.decode()


@cache
def _devices() -> list[ctypes.c_void_p]:
    nvml, count, found = _nvml(), ctypes.c_uint(), []
    if nvml is None or nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)):
        return []
    for i in range(count.value):
        device = ctypes.c_void_p()
        if nvml.nvmlDeviceGetHandleByIndex_v2(ctypes.c_uint(i), ctypes.byref(device)) == 0:
            found.append(device)
    return found


@cache
def _nvml() -> Any:
    """The library, initialised, or None."""
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
    except OSError:
        return None
    return library if library.nvmlInit_v2() == 0 else None
