"""ONNX Runtime: on the CPU, and by the providers that an installed build has."""

from __future__ import annotations

import ctypes
import io
import json
import math
import re
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core import environments
from ..core.errors import ConverterFailed, MissingPart, UsageError
from ..core.specs import TensorSpec
from .base import Missing, Settings, checked, installed, is_heavy, majority, version_of
from .profile import Operator, Part, Profile, in_parts, profile_of

if TYPE_CHECKING:
    from numpy import ndarray

_LEVELS = {
    "all": "ORT_ENABLE_ALL",
    "extended": "ORT_ENABLE_EXTENDED",
    "basic": "ORT_ENABLE_BASIC",
    "disabled": "ORT_DISABLE_ALL",
}
_PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "migraphx": "MIGraphXExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
    "dnnl": "DnnlExecutionProvider",
    "xnnpack": "XnnpackExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
    "qnn": "QNNExecutionProvider",
}
# CUDA computes fp32 in TF32 (10 bits of fraction) unless told not to: fp32 means fp32.
_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
_GPU = ("cuda", "tensorrt")
_TODO = {
    "cuda": "CUDA {cuda} and cuDNN 9 must be on LD_LIBRARY_PATH, or packages of the Python that runs seatrial "
    "(nvidia-cublas, nvidia-curand, nvidia-cuda-runtime, nvidia-cufft, nvidia-cudnn-cu13)",
    "tensorrt": "TensorRT 10 must be on LD_LIBRARY_PATH; or give provider=cuda",
}
_NO_DEVICE = re.compile(r"CUDA failure (?:35|100|101|80\d): [^;]*")
"""No device, or a driver that doesn't fit; other failures, such as no memory, say nothing of that."""
_ALLOWED: dict[str, Sequence[Any] | None] = {
    "threads": None,
    "graph_optimization": tuple(_LEVELS),
    "provider": tuple(_PROVIDERS),
    # Where inputs and outputs of the timed loop lie: on the host, which pays for the way to a GPU and back, or on it.
    "io": ("host", "device"),
}
# ONNX Runtime spells element types as in C++.
_DTYPES = {"float": "float32", "double": "float64"}
_KERNEL = "_kernel_time"
_HOLDERS = {"If", "Loop", "Scan"}
"""They run other operators, which have events of their own."""

_EXAMPLE = """
def open_model(path):
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = {threads}
    options.graph_optimization_level = ort.GraphOptimizationLevel.{level}
    session = ort.InferenceSession(str(path), options, providers={providers!r})
    names = [output.name for output in session.get_outputs()]
    return lambda feed: dict(zip(names, session.run(names, feed)))
"""
# What the other providers need more: none of them may fall back to the CPU in silence.
_EXAMPLE_PRELOAD = "    ort.preload_dlls()  # CUDA and cuDNN of pip packages, where there are any\n"
_EXAMPLE_CHECK = """    session.disable_fallback()
    if {name!r} not in session.get_providers():
        raise RuntimeError("{name} did not load")
"""


class OnnxRuntime:
    """The target ``onnxruntime``."""

    name = "onnxruntime"
    format = "onnx"
    suffix = ".onnx"

    def probe(self) -> Missing | None:
        """See `Target.probe`."""
        return installed("onnxruntime", "onnxruntime")

    def version(self) -> str:
        """See `Target.version`."""
        return version_of("onnxruntime") or version_of("onnxruntime-gpu")

    def precisions(self, flags: Sequence[str]) -> tuple[str, ...]:
        """See `Target.precisions`."""
        return ("fp32", "fp16", "int8")

    def settings(self, precision: str, threads: int = 1) -> dict[str, Any]:
        """See `Target.settings`."""
        return {"threads": threads, "graph_optimization": "all"}

    def strict(self, precision: str) -> dict[str, Any]:
        """See `Target.strict`."""
        return {"threads": 1, "graph_optimization": "disabled"}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """See `Target.choices`."""
        return {"graph_optimization": ("all", "extended", "basic")}

    def example(self, settings: Settings) -> str:
        """See `Target.example`."""
        level = _LEVELS[settings.get("graph_optimization", "all")]
        text = _EXAMPLE.format(threads=settings["threads"], level=level, providers=_providers(settings))
        asked = settings.get("provider", "cpu")
        if asked in _GPU:
            text = text.replace("    session =", f"{_EXAMPLE_PRELOAD}    session =")
        if asked != "cpu":
            text = text.replace("    names =", f"{_EXAMPLE_CHECK.format(name=_PROVIDERS[asked])}    names =")
        return text

    def on(self, provider: str) -> dict[str, Any]:
        """See `Target.on`."""
        return {"provider": provider}

    def interpreter(self, settings: Settings) -> Path | None:
        """See `targets.interpreter`: onnxruntime-gpu can't be installed beside onnxruntime."""
        gpu = settings.get("provider") in _GPU and not version_of("onnxruntime-gpu")
        return environments.ready("onnxruntime-gpu") if gpu else None

    def open(self, path: Path, settings: Settings) -> OrtSession:
        """See `Target.open`."""
        known = checked(self.name, settings, _ALLOWED)
        if known.get("io") == "device" and known.get("provider") not in _GPU:
            todo = f"give provider={_GPU[0]} too, or leave it away"
            raise UsageError(f"{self.name}: io=device", "only a GPU has memory of its own", todo)
        return OrtSession(path, known)


class OrtSession:
    """A model in ONNX Runtime; outputs are bound once their shapes are known."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        self._path, self._settings = path, settings
        self._session = self._load()
        self.inputs = [_spec(node) for node in self._session.get_inputs()]
        self.outputs = [_spec(node) for node in self._session.get_outputs()]
        self._binding: Any = None
        self._feed: dict[str, ndarray] = {}

    def _load(self, profile: str | None = None) -> Any:
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.log_severity_level = 3
        options.intra_op_num_threads = self._settings.get("threads", 1)
        level = _LEVELS[self._settings.get("graph_optimization", "all")]
        options.graph_optimization_level = getattr(ort.GraphOptimizationLevel, level)
        if profile:
            options.enable_profiling = True
            options.profile_file_prefix = profile
        asked = self._settings.get("provider", "cpu")
        able = ort.get_available_providers()
        if _PROVIDERS[asked] not in able:
            known = ", ".join(name for name, full in _PROVIDERS.items() if full in able)
            todo = "seatrial env create onnxruntime-gpu" if asked in _GPU else "install a build that has it"
            raise MissingPart(f"onnxruntime with provider={asked}", f"this build has: {known}", todo)
        return _opened(ort, self._path, options, self._settings)

    def run(self, feed: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """See `Session.run`."""
        names = [output.name for output in self.outputs]
        return dict(zip(names, self._session.run(names, dict(feed)), strict=True))

    def bind(self, feed: Mapping[str, ndarray]) -> None:
        """See `Session.bind`."""
        import onnxruntime as ort

        self._feed = dict(feed)
        self._binding = self._session.io_binding()
        where = "cuda" if self._settings.get("io") == "device" else "cpu"
        for name, array in feed.items():
            self._binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(array, where, 0))
        for name, array in self.run(feed).items():
            self._binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array, where, 0))

    def step(self) -> None:
        """See `Session.step`."""
        # A GPU is done when this returns: a run ends with waiting for the provider's stream, unless the run option
        # disable_synchronize_execution_providers says not to (onnxruntime_run_options_config_keys.h).
        self._session.run_with_iobinding(self._binding)

    def streams(self, count: int) -> list[OrtSession]:
        """See `Streams.streams`: one session of the runtime, a binding for each."""
        found = [copy(self) for _ in range(count)]
        for one in found:
            one._binding = None
        return found

    def placement(self) -> dict[str, Any]:
        """See `Session.placement`; profiles one run of a second session, so that the timed one stays as it is."""
        (nodes,), _ = self._profiled(None)
        where: Counter[str] = Counter(event["args"]["provider"] for event in nodes)
        ops: Counter[str] = Counter(event["args"]["op_name"] for event in nodes)
        weights: Counter[str] = Counter()
        for event in nodes:
            if is_heavy(event["args"]["op_name"]):
                weights[_precision(event["args"])] += _elements(event["args"])
        asked = _PROVIDERS[self._settings.get("provider", "cpu")]
        if not where[asked]:
            what = f"onnxruntime with provider={self._settings['provider']}"
            raise ConverterFailed(what, f"it ran no node; {', '.join(where)} ran all", "choose another --provider")
        return {"precision": majority(weights, "fp32"), "asked": asked, "where": dict(where), "ops": dict(ops)}

    def profile(self, runs: int) -> Profile:
        """See `Profiled.profile`."""
        found, parts = self._profiled(runs)
        nodes = [_operators(events, part.runs) for events, part in zip(found, parts, strict=True)]
        source = "ONNX Runtime's profiler"
        if self._settings.get("provider") in _GPU:  # of 2.8 ms on an H100 it told 0.8
            source += ", which tells what a kernel takes to launch and not to run"
        return profile_of(nodes, parts, source)

    def _profiled(self, runs: int | None) -> tuple[list[list[dict[str, Any]]], list[Part]]:
        """Events of operators in each part of so many runs of a second session, after one that isn't counted.

        Of that first run itself where `runs` is None.
        """
        parts = [Part(-1, 1, 0.0)]
        with tempfile.TemporaryDirectory() as folder:
            other = copy(self)
            other._session = self._load(profile=str(Path(folder) / "profile"))
            if runs is None:
                other.run(self._feed)
            else:
                other.bind(self._feed)
                parts = in_parts(other.step, runs)
            events = json.loads(Path(other._session.end_profiling()).read_text())
        return [_within(events, part) for part in parts], parts

    def close(self) -> None:
        """See `Session.close`."""
        self._binding = self._session = None


def _providers(settings: Settings) -> list[Any]:
    """The provider that was asked for, then the CPU for what it can't take."""
    name = _PROVIDERS[settings.get("provider", "cpu")]
    first = (name, _OPTIONS[name]) if name in _OPTIONS else name
    return [first] if name == _PROVIDERS["cpu"] else [first, _PROVIDERS["cpu"]]


def _opened(ort: Any, path: Path, options: Any, settings: Settings) -> Any:
    """A session whose provider is the one that was asked for; left alone, ONNX Runtime takes the CPU instead.

    Raises:
        MissingPart: the provider's library, one that it needs, or its device isn't there.
    """
    asked = settings.get("provider", "cpu")
    if asked in _GPU:
        # CUDA and cuDNN of pip packages lie where no loader looks. What it prints of missing ones is told below.
        with redirect_stdout(io.StringIO()):
            ort.preload_dlls()
    failed: Exception | None = None
    try:
        session = ort.InferenceSession(str(path), options, providers=_providers(settings), enable_fallback=0)
        if _PROVIDERS[asked] in session.get_providers():
            return session
    except Exception as error:
        failed = error
    library = _unloadable(ort, asked) if asked in _GPU else ""
    device = _NO_DEVICE.search(str(failed))
    if failed and not library and not device:
        raise failed
    todo = _TODO.get(asked, "choose another --provider").format(cuda=getattr(ort, "cuda_version", ""))
    if device and not library:
        library, todo = device[0].strip(), "nvidia-smi shows the GPUs and the driver that are here"
    raise MissingPart(f"onnxruntime with provider={asked}", library or "it did not load", todo) from failed


def _unloadable(ort: Any, provider: str) -> str:
    """Why the library of a provider doesn't load, in the loader's words; empty where it does."""
    try:
        ctypes.CDLL(str(Path(ort.__file__).parent / "capi" / f"libonnxruntime_providers_{provider}.so"))
    except OSError as error:
        return str(error)
    return ""


def _within(events: Sequence[dict[str, Any]], part: Part) -> list[dict[str, Any]]:
    """Events of operators in these runs, which are numbered from the second: the first one binds."""
    runs = sorted((e["ts"], e["ts"] + e["dur"]) for e in events if e["name"] == "model_run")
    start, end = runs[part.first + 1][0], runs[part.first + part.runs][1]
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_KERNEL)]
    return [e for e in nodes if start <= e["ts"] <= end]


def _operators(events: Sequence[dict[str, Any]], runs: int) -> list[Operator]:
    """One for each node, its calls of all runs put together."""
    found: dict[tuple[str, str], Operator] = {}
    for event in events:
        args, name = event["args"], event["name"].removesuffix(_KERNEL)
        if args["op_name"] in _HOLDERS:
            continue
        blank: Operator = {
            "name": name,
            "op": args["op_name"],
            "where": args["provider"],
            "precision": _precision(args),
            "us": 0.0,
            "calls": 0.0,
        }
        one = found.setdefault((name, args["node_index"]), blank)
        one["us"] += event["dur"]
        one["calls"] += 1
    return [{**one, "us": one["us"] / runs, "calls": one["calls"] / runs} for one in found.values()]


def _precision(args: dict[str, Any]) -> str:
    if args["op_name"].startswith("QLinear") or "Integer" in args["op_name"] or args["op_name"] == "QGemm":
        return "int8"
    types = {name for shape in args["input_type_shape"][:2] for name in shape}
    if types & {"int8", "uint8"}:
        return "int8"
    return {"float16": "fp16", "bfloat16": "bf16"}.get(min(types, default=""), "fp32")


def _elements(args: dict[str, Any]) -> int:
    """How many numbers an operator reads and writes, without weights.

    Not the time it took: in one run of a small model a single interruption is longer than all operators.
    """
    shapes = [*args["input_type_shape"][:1], *args["output_type_shape"]]
    return sum(math.prod(shape) for typed in shapes for shape in typed.values())


def _spec(node: Any) -> TensorSpec:
    dtype = node.type.removeprefix("tensor(").removesuffix(")")
    shape = tuple(
        axis if isinstance(axis, int) else str(axis or f"{node.name}.{i}") for i, axis in enumerate(node.shape)
    )
    return TensorSpec(node.name, _DTYPES.get(dtype, dtype), shape)
