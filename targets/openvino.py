"""OpenVINO, with the precision always pinned: its own default may be bf16."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from copy import copy
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConverterFailed, MissingPart
from ..core.specs import TensorSpec
from .base import Missing, Settings, checked, installed, is_heavy, majority, version_of
from .profile import Operator, Profile, in_parts, profile_of

if TYPE_CHECKING:
    from numpy import ndarray

_ALLOWED: dict[str, Sequence[Any] | None] = {
    "threads": None,
    "inference_precision": ("f32", "bf16", "default"),
    "execution_mode": ("performance", "accuracy"),
    "device": ("CPU", "GPU", "NPU", "AUTO"),
}
_PRECISIONS = {"f32": "fp32", "f16": "fp16", "bf16": "bf16", "i8": "int8", "u8": "int8"}

_EXAMPLE = """
def open_model(path):
    import openvino as ov

    config = {config!r}
    read = ov.Core().read_model(str(path))
    names = [output.get_any_name() for output in read.outputs]
    model = ov.Core().compile_model(read, {device!r}, config)

    def run(feed):
        results = model(feed)
        return {{name: results[output] for name, output in zip(names, model.outputs)}}

    return run
"""


class OpenVino:
    """The target ``openvino``."""

    name = "openvino"
    format = "openvino"
    suffix = ".xml"

    def probe(self) -> Missing | None:
        """See `Target.probe`."""
        return installed("openvino", "openvino")

    def version(self) -> str:
        """See `Target.version`."""
        return version_of("openvino")

    def precisions(self, flags: Sequence[str]) -> tuple[str, ...]:
        """See `Target.precisions`."""
        has_bf16 = {"avx512_bf16", "amx_bf16"} & set(flags)
        return ("fp32", "fp16", "bf16", "int8") if has_bf16 else ("fp32", "fp16", "int8")

    def settings(self, precision: str, threads: int = 1) -> dict[str, Any]:
        """See `Target.settings`. What int8 leaves in float stays f32."""
        return {"threads": threads, "inference_precision": "bf16" if precision == "bf16" else "f32"}

    def strict(self, precision: str) -> dict[str, Any]:
        """See `Target.strict`."""
        return {"threads": 1, "inference_precision": "f32", "execution_mode": "accuracy"}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """See `Target.choices`."""
        return {}

    def example(self, settings: Settings) -> str:
        """See `Target.example`."""
        return _EXAMPLE.format(config=_config(settings), device=settings.get("device", "CPU"))

    def on(self, provider: str) -> dict[str, Any]:
        """See `Target.on`."""
        return {"device": provider.upper()}

    def open(self, path: Path, settings: Settings) -> OvSession:
        """See `Target.open`."""
        return OvSession(path, checked(self.name, settings, _ALLOWED))


class OvSession:
    """A model in OpenVINO, one stream, one request."""

    def __init__(self, path: Path, settings: dict[str, Any]) -> None:
        import openvino as ov

        core = ov.Core()
        self._device = settings.get("device", "CPU")
        if self._device != "AUTO" and not any(d.startswith(self._device) for d in core.available_devices):
            found = f"it sees here: {', '.join(core.available_devices)}"
            raise MissingPart(f"openvino on {self._device}", found, "install the driver of that device")
        read = core.read_model(str(path))
        self._path, self._settings = path, settings
        self._model = core.compile_model(read, self._device, _config(settings))
        self._request = self._model.create_infer_request()
        # Names as the file has them: an operator that is optimised away leaves its port with a second one.
        self.inputs = [_spec(port, _name(at)) for port, at in zip(self._model.inputs, read.inputs, strict=True)]
        self.outputs = [_spec(port, _name(at)) for port, at in zip(self._model.outputs, read.outputs, strict=True)]

    def run(self, feed: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """See `Session.run`."""
        results = self._request.infer(dict(feed))
        ports = zip(self.outputs, self._model.outputs, strict=True)
        return {spec.name: results[port].copy() for spec, port in ports}

    def bind(self, feed: Mapping[str, ndarray]) -> None:
        """See `Session.bind`."""
        import openvino as ov

        # Shared memory needs arrays that live as long as the request.
        self._bound = {name: array.copy() for name, array in feed.items()}
        for name, array in self._bound.items():
            self._request.set_tensor(name, ov.Tensor(array, shared_memory=True))

    def step(self) -> None:
        """See `Session.step`."""
        self._request.infer(share_outputs=True)

    def streams(self, count: int) -> list[OvSession]:
        """See `Streams.streams`: one model compiled for so many streams, a request for each."""
        import openvino as ov

        threads = count * self._settings.get("threads", 1)
        config = _config({**self._settings, "threads": threads})
        if "NUM_STREAMS" in config:
            config["NUM_STREAMS"] = count
        model = ov.Core().compile_model(str(self._path), self._device, config)
        found = [copy(self) for _ in range(count)]
        for one in found:
            one._model, one._request = model, model.create_infer_request()
        return found

    def placement(self) -> dict[str, Any]:
        """See `Session.placement`; read from the graph that was compiled."""
        weights: Counter[str] = Counter()
        ops: Counter[str] = Counter()
        for op in self._model.get_runtime_model().get_ordered_ops():
            info = op.get_rt_info()
            kind = _text(info, "layerType") or op.get_type_name()
            ops[kind] += 1
            if is_heavy(kind):
                runtime = _text(info, "runtimePrecision")
                weights[_PRECISIONS.get(runtime, runtime)] += 1
        devices = self._model.get_property("EXECUTION_DEVICES")
        if self._device != "AUTO" and not any(name.startswith(self._device) for name in devices):
            found = f"{', '.join(devices)} ran it"
            raise ConverterFailed(f"openvino on {self._device}", found, "choose another --provider")
        return {
            "precision": majority(weights, "fp32"),
            "asked": self._device if self._device != "AUTO" else devices[0],
            "where": {name: sum(ops.values()) for name in devices},
            "ops": dict(ops),
            "heavy": dict(weights),
        }

    def profile(self, runs: int) -> Profile:
        """See `Profiled.profile`."""
        import openvino as ov

        config = _config(self._settings) | {"PERF_COUNT": True}
        other = copy(self)
        other._model = ov.Core().compile_model(str(self._path), self._device, config)
        other._request = other._model.create_infer_request()
        other.bind(self._bound)
        other.step()
        devices = list(other._model.get_property("EXECUTION_DEVICES"))
        seen = [other._counters()]
        parts = in_parts(other.step, runs, after=lambda: seen.append(other._counters()))
        # A CPU's counters are means since the first inference; other devices tell the last one alone.
        each = [
            _since(seen[i], 1 + part.first, then, 1 + part.first + part.runs) if devices == ["CPU"] else then
            for i, (part, then) in enumerate(zip(parts, seen[1:], strict=True))
        ]
        nodes = [_operators(times, ", ".join(devices)) for times in each]
        return profile_of(nodes, parts, "OpenVINO's performance counters")

    def _counters(self) -> dict[tuple[str, str, str], float]:
        """Name, type and implementation of each operator that ran → µs."""
        infos = [info for info in self._request.profiling_info if info.status.name == "EXECUTED"]
        return {(i.node_name, i.node_type, i.exec_type): i.real_time.total_seconds() * 1e6 for i in infos}

    def close(self) -> None:
        """See `Session.close`."""
        self._request = self._model = None


def _config(settings: Settings) -> dict[str, Any]:
    precision = settings.get("inference_precision", "f32")
    config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
    if settings.get("device", "CPU") == "CPU":  # others refuse what only a CPU has
        config |= {"INFERENCE_NUM_THREADS": settings.get("threads", 1), "NUM_STREAMS": 1}
    if precision != "default":
        config["INFERENCE_PRECISION_HINT"] = precision
    if settings.get("execution_mode") == "accuracy":
        config["EXECUTION_MODE_HINT"] = "ACCURACY"
    return config


def _operators(times: Mapping[tuple[str, str, str], float], where: str) -> list[Operator]:
    return [
        {"name": name, "op": kind, "where": where, "precision": _precision(exec_type), "us": us, "calls": 1.0}
        for (name, kind, exec_type), us in times.items()
    ]


def _since(first: Mapping[Any, float], before: int, then: Mapping[Any, float], after: int) -> dict[Any, float]:
    """Means of the later inferences alone, out of means over the `before` first ones and over the `after` first.

    Those are cut to whole µs, so half a µs is what they lack.
    """
    sums = {key: after * (us + 0.5) - before * (first.get(key, us) + 0.5) for key, us in then.items()}
    return {key: max(0.0, us / (after - before)) for key, us in sums.items()}


def _precision(exec_type: str) -> str:
    """Of an implementation's name: ``jit_avx2_I8`` computes in int8; empty where it says none."""
    return _PRECISIONS.get(exec_type.rpartition("_")[2].lower(), "")


def _text(info: Any, key: str) -> str:
    return str(info[key].astype(str)) if key in info else ""


def _name(port: Any) -> str:
    return str(port.get_any_name() if port.get_names() else port.get_node().get_friendly_name())


def _spec(port: Any, name: str) -> TensorSpec:
    shape = tuple(
        axis.get_length() if axis.is_static else f"{name}.{i}" for i, axis in enumerate(port.get_partial_shape())
    )
    return TensorSpec(name, port.get_element_type().to_dtype().name, shape)
