"""LiteRT's own profiler, by the C API in its wheel: the Python interpreter shows no operator that XNNPACK took.

The same file is compiled once more by `libLiteRt.so`, with the same kernels and threads. XNNPACK names its operators by
kernel, not by tensor; `names` joins them with the file's operators by their order, where the counts allow it.
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from ctypes import CFUNCTYPE, Structure, byref, c_bool, c_char_p, c_int, c_int32, c_size_t, c_uint32, c_uint64, c_void_p
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .base import is_heavy
from .profile import Part, in_parts

if TYPE_CHECKING:
    from numpy import ndarray

VERSIONS = ("2.2.", "2.3.")
"""Of `ai-edge-litert`: the C API is read by its layout in memory, which these have."""
BEGIN, INVOKE, DELEGATED = 1, 2, 8
"""Kinds of events: a whole inference, an operator of the interpreter, and one of a delegate."""
HOLDERS = {"WHILE", "IF", "CALL", "CALL_ONCE", "STABLEHLO_COMPOSITE"}
"""They run other operators, which have events of their own."""
_CPU, _WRITE = 1, 1
_KERNELS = {"xnnpack": "delegate", "none": "builtin", "reference": "reference"}
_INT8, _WEIGHTS = dict.fromkeys(("QS8", "QU8", "QC8"), "int8"), dict.fromkeys(("QD8", "QP8"), "int8 weights")
_TYPES = {**_INT8, **_WEIGHTS, "F16": "fp16", "F32": "fp32"}
_NOTHING = CFUNCTYPE(None, c_void_p)(lambda _: None)


class Event(NamedTuple):
    """One operator of one inference. `node` is its index: the interpreter's, or the delegate's own."""

    tag: str
    kind: int
    us: int
    node: int
    subgraph: int


class _Layout(Structure):
    _fields_ = (("rank", c_uint32), ("dimensions", c_int32 * 8), ("strides", c_uint32 * 8))


class _Ranked(Structure):
    _fields_ = (("element", c_int), ("layout", _Layout))


class _Event(Structure):
    _fields_ = (
        ("tag", c_char_p),
        ("kind", c_int),
        ("start_us", c_uint64),
        ("us", c_uint64),
        ("memory", c_size_t * 6),
        ("node", c_uint64),
        ("subgraph", c_uint64),
        ("source", c_int),
    )


def events(
    library: Path, model: Path, feed: Mapping[str, ndarray], threads: int, delegate: str, runs: int
) -> tuple[list[list[list[Event]]], list[Part]]:
    """The operators' events of each run of each part of so many.

    Raises:
        OSError: the library isn't there.
        RuntimeError: a call failed; the message names it.
    """
    with ExitStack() as stack:
        lib = _Library(library, stack)
        environment = lib.made("Environment", 0, None)
        file = lib.made("Model", environment, str(model).encode(), create="LiteRtCreateModelFromFile")
        options = lib.made("Options")
        lib.call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        lib.add(options, b"runtime_options_string", b"enable_profiling = true\n")
        lib.add(options, b"xnnpack", f'kernel_mode = "{_KERNELS[delegate]}"\nnum_threads = {threads}\n'.encode())
        compiled = lib.made("CompiledModel", environment, file, options)
        signature = lib.got("LiteRtGetModelSignature", file, c_size_t(0))
        inputs = lib.buffers(environment, compiled, signature, "Input", feed)
        outputs = lib.buffers(environment, compiled, signature, "Output", {})
        arguments = (c_size_t(0), c_size_t(len(inputs)), inputs, c_size_t(len(outputs)), outputs)
        lib.call("LiteRtRunCompiledModel", compiled, *arguments)
        profiler = lib.got("LiteRtCompiledModelGetProfiler", compiled)
        lib.call("LiteRtStartProfiler", profiler)
        parts = in_parts(lambda: lib.call("LiteRtRunCompiledModel", compiled, *arguments), runs)
        lib.call("LiteRtStopProfiler", profiler)
        recorded = lib.events(profiler)
        return [_by_run(recorded, part) for part in parts], parts


class _Library:
    """`libLiteRt.so`: every call checked, and what is made destroyed when the stack ends."""

    def __init__(self, path: Path, stack: ExitStack) -> None:
        self._lib, self._stack = ctypes.CDLL(str(path)), stack

    def call(self, name: str, *arguments: Any) -> None:
        status = getattr(self._lib, name)(*arguments)
        if status:
            raise RuntimeError(f"{name} answered {status}")

    def got(self, name: str, *arguments: Any) -> c_void_p:
        """A handle that belongs to what it is asked of."""
        handle = c_void_p()
        self.call(name, *arguments, byref(handle))
        return handle

    def made(self, kind: str, *arguments: Any, create: str = "") -> c_void_p:
        handle = self.got(create or f"LiteRtCreate{kind}", *arguments)
        destroy = getattr(self._lib, f"LiteRtDestroy{kind}")
        destroy.restype = None
        self._stack.callback(destroy, handle)
        return handle

    def add(self, options: c_void_p, kind: bytes, text: bytes) -> None:
        payload = ctypes.create_string_buffer(text)
        self._stack.callback(lambda: payload)  # it must live as long as the options
        opaque = self.got("LiteRtCreateOpaqueOptions", kind, ctypes.cast(payload, c_void_p), _NOTHING)
        self.call("LiteRtAddOpaqueOptions", options, opaque)

    def buffers(
        self, environment: c_void_p, compiled: c_void_p, signature: c_void_p, side: str, feed: Mapping[str, ndarray]
    ) -> Any:
        """Buffers of all inputs or outputs, filled where `feed` has them."""
        count = c_size_t()
        self.call(f"LiteRtGetNumSignature{side}s", signature, byref(count))
        found = (c_void_p * count.value)()
        for i in range(count.value):
            at = (c_size_t(0), c_size_t(i))
            tensor = self.got(f"LiteRtGetSignature{side}TensorByIndex", signature, at[1])
            ranked = _Ranked()
            self.call("LiteRtGetRankedTensorType", tensor, byref(ranked))
            name = c_char_p()
            self.call(f"LiteRtGetSignature{side}Name", signature, at[1], byref(name))
            array = feed.get((name.value or b"").decode())
            if array is not None:
                self._resize(compiled, at, ranked, array)
            elif side == "Output":
                self._sized(compiled, count.value, i, ranked)
            needs = self.got(f"LiteRtGetCompiledModel{side}BufferRequirements", compiled, *at)
            make = "LiteRtCreateManagedTensorBufferFromRequirements"
            buffer = self.made("TensorBuffer", environment, byref(ranked), needs, create=make)
            if array is not None:
                ctypes.memmove(self._locked(buffer), array.ctypes.data, array.nbytes)
                self.call("LiteRtUnlockTensorBuffer", buffer)
            found[i] = buffer
        return found

    def _resize(self, compiled: c_void_p, at: Sequence[c_size_t], ranked: _Ranked, array: ndarray) -> None:
        """Take the sizes of the array where the file leaves them free."""
        if list(ranked.layout.dimensions[: array.ndim]) != list(array.shape):
            sizes = (c_int * array.ndim)(*array.shape)
            self.call("LiteRtCompiledModelResizeInputTensorNonStrict", compiled, *at, sizes, c_size_t(array.ndim))
            ranked.layout.dimensions[: array.ndim] = list(array.shape)

    def _sized(self, compiled: c_void_p, count: int, i: int, ranked: _Ranked) -> None:
        """Take the sizes that follow from the inputs'."""
        layouts, fresh = (_Layout * count)(), c_bool(True)
        call = "LiteRtGetCompiledModelOutputTensorLayouts"
        self.call(call, compiled, c_size_t(0), c_size_t(count), layouts, fresh)
        ranked.layout = layouts[i]

    def _locked(self, buffer: c_void_p) -> c_void_p:
        """The memory of a buffer, until it is unlocked."""
        memory = c_void_p()
        self.call("LiteRtLockTensorBuffer", buffer, byref(memory), _WRITE)
        return memory

    def events(self, profiler: c_void_p) -> list[Event]:
        """All that was recorded."""
        count = c_int()
        self.call("LiteRtGetNumProfilerEvents", profiler, byref(count))
        recorded = (_Event * count.value)()
        self.call("LiteRtGetProfilerEvents", profiler, count, recorded)
        return [Event((e.tag or b"").decode(), e.kind, e.us, e.node, e.subgraph) for e in recorded]


def _by_run(recorded: Sequence[Event], part: Part) -> list[list[Event]]:
    """The runs of that part; an `Invoke` begins each."""
    runs: list[list[Event]] = []
    for event in recorded:
        if event.tag == "Invoke" and event.kind == BEGIN:  # telemetry has one of that name too
            runs.append([])
        elif runs and event.kind in (INVOKE, DELEGATED) and event.tag not in HOLDERS:
            runs[-1].append(event)
    return runs[part.first : part.first + part.runs]


def summed(runs: Sequence[Sequence[Event]]) -> list[tuple[Event, float]]:
    """Each operator in the order of its first run, with its mean in µs.

    Delegates count their operators from 0 in each part of the graph that they took, so one index may come again.
    """
    times: Counter[tuple[Any, ...]] = Counter()
    first: dict[tuple[Any, ...], Event] = {}
    for run in runs:
        seen: Counter[tuple[Any, ...]] = Counter()
        for event in run:
            what = (event.tag, event.kind, event.node, event.subgraph)
            key = (*what, seen[what])
            seen[what] += 1
            times[key] += event.us
            first.setdefault(key, event)
    return [(event, times[key] / len(runs)) for key, event in first.items()]


def described(tag: str) -> tuple[str, str]:
    """``Convolution (NHWC, F32) IGEMM`` as ``("Convolution IGEMM", "fp32")``; not every tag tells a type."""
    found = re.fullmatch(r"(.*?) \((.*?)\) ?(.*)", tag)
    if not found:
        return tag, ""
    before, types, after = found.groups()
    words = re.split(r"[ ,]+", types)
    kernel = "" if after == before else after
    return f"{before} {kernel}".strip(), next((_TYPES[word] for word in words if word in _TYPES), "")


def joined(tags: Sequence[str], ops: Sequence[str]) -> list[int | None]:
    """For each delegated operator the position of the file's one that it came from, or None where order can't tell.

    XNNPACK keeps the file's order but fuses and adds small ones; those that do the arithmetic are as many as before.
    """
    heavy = [is_heavy(tag) or "matrix multiply" in tag.lower() for tag in tags]
    wanted = [is_heavy(op) for op in ops]
    if heavy == wanted:
        return list(range(len(ops)))
    if sum(heavy) != sum(wanted):
        return [None] * len(tags)
    positions = iter([i for i, each in enumerate(wanted) if each])
    return [next(positions) if each else None for each in heavy]
