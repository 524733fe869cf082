"""Facts of this host: what identifies it (the fingerprint), and what may change from one minute to the next.

Read from /proc and /sys, because a small board has nothing else; psutil fills in elsewhere.
"""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from ..core.ids import content_id
from .gpu import gpus

GIB = 1 << 30
_X86_FLAGS = """
    sse4_1 sse4_2 avx avx2 f16c fma avx512f avx512bw avx512vl avx512_vnni avx_vnni avx512_bf16 avx512_fp16
    amx_tile amx_int8 amx_bf16
"""
_ARM_FLAGS = "neon asimd asimdhp asimddp i8mm bf16 sve sve2 sme fphp"
VECTOR_FLAGS = frozenset(f"{_X86_FLAGS} {_ARM_FLAGS}".split())


def cpu_flags() -> tuple[str, ...]:
    """The vector instructions that the kernel reports, sorted."""
    words = set()
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        if key.strip().lower() in ("flags", "features"):
            words |= set(value.split())
    return tuple(sorted(words & VECTOR_FLAGS))


def cpu_model() -> str:
    """The processor's name; on ARM boards the board's name and the core's part numbers."""
    fields: dict[str, set[str]] = {}
    for line in _read("/proc/cpuinfo").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip().lower(), set()).add(value.strip())
    if names := fields.get("model name"):
        return ", ".join(sorted(names))
    board = _read("/proc/device-tree/model").strip("\0\n ")
    parts = sorted(fields.get("cpu part", set()))
    found = " ".join([board, *parts]).strip()
    return found or platform.processor() or "unknown"


def cores_given() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


def memory_bytes() -> int:
    """Memory of the machine, or the limit of our control group where that is smaller."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = _read("/sys/fs/cgroup/memory.max").strip()
    return min(total, int(limit)) if limit.isdigit() else total


def memory_free_bytes() -> int:
    """What new processes of ours may take without anything being swapped or killed."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = (_read(f"/sys/fs/cgroup/memory.{name}").strip() for name in ("max", "current"))
    return min(free, int(limit) - int(used)) if limit.isdigit() and used.isdigit() else free


def virtualisation() -> str | None:
    """What stands between us and the hardware, as far as it can be told; None where nothing is seen."""
    seen = []
    if any(line.startswith("flags") and " hypervisor" in line for line in _read("/proc/cpuinfo").splitlines()):
        vendor = " ".join(_read(f"/sys/class/dmi/id/{name}").strip() for name in ("sys_vendor", "product_name"))
        seen.append(f"virtual machine ({vendor.strip()})" if vendor.strip() else "virtual machine")
    if os.path.exists("/.dockerenv") or os.path.exists("/run/.containerenv"):
        seen.append("container")
    return ", ".join(seen) or None


def host_facts() -> dict[str, Any]:
    """Everything worth recording about this host, JSON-ready.

    `identity` is what the fingerprint is made of; `moment` stands beside it. `gpus` are in the fingerprint of what ran
    on one: a new driver changes no figure of the CPU.
    """
    return {
        "identity": {
            "cpu": cpu_model(),
            "flags": list(cpu_flags()),
            "cores": len(cores_given()),
            # Rounded: the kernel keeps a few MB more or less for itself after an update.
            "memory_gib": round(memory_bytes() / GIB),
            "os": platform.system(),
            "machine": platform.machine(),
        },
        "gpus": gpus(),
        "moment": {
            "kernel": platform.release(),
            "python": platform.python_version(),
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor").strip() or None,
            "cgroup_cpu_max": _read("/sys/fs/cgroup/cpu.max").strip() or None,
            "virtualisation": virtualisation(),
            "cores": cores_given(),
        },
    }


def fingerprint(facts: Mapping[str, Any], runtime: Mapping[str, str], on: Collection[str] = ()) -> str:
    """The id of a device for measurements: its identity with the runtime's name and version.

    Args:
        on: names of the GPUs that were used.
    """
    found = {"identity": facts["identity"], "runtime": dict(runtime)}
    used = [gpu for gpu in facts.get("gpus", ()) if gpu["name"] in on]
    return content_id(found | ({"gpus": used} if used else {}))


def snapshot() -> dict[str, float]:
    """Counters of the whole machine that tell how disturbed a block was; cheap to read."""
    found: dict[str, float] = {}
    if sys.platform != "linux":
        return found
    first = _read("/proc/stat").partition("\n")[0].split()
    ticks = os.sysconf("SC_CLK_TCK")
    if len(first) > 8:
        busy = sum(int(first[i]) for i in (1, 2, 3, 6, 7))
        found |= {"steal_s": int(first[8]) / ticks, "busy_s": busy / ticks}
    some = _read("/proc/pressure/cpu").partition("\n")[0]
    if "total=" in some:
        found["psi_cpu_s"] = int(some.rpartition("total=")[2]) / 1e6
    return found


def levels() -> dict[str, float]:
    """Readings that have no delta: load, clock and temperature where the machine tells them."""
    found: dict[str, float] = {}
    if hasattr(os, "getloadavg"):
        found["load_1m"] = os.getloadavg()[0]
    clock = _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq").strip()
    if clock.isdigit():
        found["clock_mhz"] = int(clock) / 1e3
    heat = _read("/sys/class/thermal/thermal_zone0/temp").strip()
    if heat.lstrip("-").isdigit():
        found["temperature_c"] = int(heat) / 1e3
    return found


def disturbance(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, float]:
    """What happened between two snapshots, with the levels at the end."""
    return {key: round(after[key] - before[key], 6) for key in before if key in after} | levels()


def _read(path: str) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""
