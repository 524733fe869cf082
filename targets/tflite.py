"""TFLite: `ai-edge-litert`, or `tflite-runtime` where a board has only that."""

from __future__ import annotations

import importlib
import importlib.util
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import ConverterFailed, Unsupported, UsageError
from ..core.specs import TensorSpec
from . import litert_profile
from .base import Missing, Settings, checked, installed, is_heavy, majority, version_of
from .profile import Operator, Profile, profile_of, without_times

if TYPE_CHECKING:
    from numpy import ndarray

_ALLOWED: dict[str, Sequence[Any] | None] = {"threads": None, "delegate": ("xnnpack", "none", "reference")}
_RESOLVERS = {"xnnpack": "AUTO", "none": "BUILTIN_WITHOUT_DEFAULT_DELEGATES", "reference": "BUILTIN_REF"}

_IMPORTS = """\
    try:
        from ai_edge_litert.interpreter import Interpreter, OpResolverType
    except ImportError:
        from tflite_runtime.interpreter import Interpreter, OpResolverType"""

_EXAMPLE = """
def open_model(path):
{imports}

    interpreter = Interpreter(
        str(path), num_threads={threads}, experimental_op_resolver_type=OpResolverType.{resolver}
    )
    if interpreter.get_signature_list():
        runner = interpreter.get_signature_runner()
        return lambda feed: runner(**feed)

    def run(feed):  # a file without a signature: its tensors have names
        for detail in interpreter.get_input_details():
            interpreter.resize_tensor_input(detail["index"], feed[detail["name"]].shape)
        interpreter.allocate_tensors()
        for detail in interpreter.get_input_details():
            interpreter.set_tensor(detail["index"], feed[detail["name"]])
        interpreter.invoke()
        return {{d["name"]: interpreter.get_tensor(d["index"]) for d in interpreter.get_output_details()}}

    return run
"""


class TfLite:
    """The target ``tflite``."""

    name = "tflite"
    format = "tflite"
    suffix = ".tflite"
    modules: tuple[str, ...] = ("ai_edge_litert", "tflite_runtime")
    """The first that is here is the runtime."""
    imports = _IMPORTS

    def probe(self) -> Missing | None:
        """See `Target.probe`."""
        if importlib.util.find_spec("tflite_runtime"):
            return None
        return installed("ai_edge_litert", "tflite")

    def version(self) -> str:
        """See `Target.version`."""
        return version_of("ai-edge-litert") or version_of("tflite-runtime")

    def precisions(self, flags: Sequence[str]) -> tuple[str, ...]:
        """See `Target.precisions`."""
        return ("fp32", "fp16", "int8")

    def settings(self, precision: str, threads: int = 1) -> dict[str, Any]:
        """See `Target.settings`."""
        return {"threads": threads, "delegate": "xnnpack"}

    def strict(self, precision: str) -> dict[str, Any]:
        """See `Target.strict`."""
        return {"threads": 1, "delegate": "none"}

    def choices(self) -> dict[str, tuple[Any, ...]]:
        """See `Target.choices`."""
        return {"delegate": ("xnnpack", "none")}

    def example(self, settings: Settings) -> str:
        """See `Target.example`."""
        resolver = _RESOLVERS[settings.get("delegate", "xnnpack")]
        return _EXAMPLE.format(imports=self.imports, threads=settings["threads"], resolver=resolver)

    def on(self, provider: str) -> dict[str, Any]:
        """See `Target.on`."""
        if provider != "cpu":
            todo = "leave --provider away; GPU and NPU delegates live on phones"
            raise Unsupported(f"{self.name} with provider={provider}", "its Python runtime has the CPU alone", todo)
        return {}

    def open(self, path: Path, settings: Settings) -> TfLiteSession:
        """See `Target.open`."""
        return TfLiteSession(path, checked(self.name, settings, _ALLOWED), self.modules)


class TfLiteSession:
    """A model in a TFLite interpreter; names are those of its first signature."""

    def __init__(self, path: Path, settings: dict[str, Any], modules: Sequence[str]) -> None:
        module = _module(modules)
        self._opened = path, settings, modules
        self._delegate = settings.get("delegate", "xnnpack")
        resolver = getattr(module.OpResolverType, _RESOLVERS[self._delegate])
        self._interpreter = module.Interpreter(
            str(path), num_threads=settings.get("threads", 1), experimental_op_resolver_type=resolver
        )
        self._interpreter.allocate_tensors()
        signature = self._signature()
        inputs = {d["index"]: d for d in self._interpreter.get_input_details()}
        outputs = {d["index"]: d for d in self._interpreter.get_output_details()}
        self._in: dict[str, int] = signature["inputs"]
        self._out: dict[str, int] = signature["outputs"]
        self.inputs = [_spec(name, inputs[index]) for name, index in self._in.items()]
        self.outputs = [_spec(name, outputs[index]) for name, index in self._out.items()]

    def _signature(self) -> dict[str, dict[str, int]]:
        # The public signature runner forbids set_tensor and invoke afterwards, which the timed loop needs; both
        # interpreters offer this table instead.
        signatures = self._interpreter._get_full_signature_list()
        if signatures:
            first: dict[str, dict[str, int]] = next(iter(signatures.values()))
            return first
        details = self._interpreter.get_input_details(), self._interpreter.get_output_details()
        ins, outs = ({d["name"]: d["index"] for d in side} for side in details)
        return {"inputs": ins, "outputs": outs}

    def run(self, feed: Mapping[str, ndarray]) -> dict[str, ndarray]:
        """See `Session.run`."""
        self.bind(feed)
        self._interpreter.invoke()
        return {name: self._interpreter.get_tensor(index) for name, index in self._out.items()}

    def bind(self, feed: Mapping[str, ndarray]) -> None:
        """See `Session.bind`."""
        details = {d["index"]: d for d in self._interpreter.get_input_details()}
        resized = False
        for name, array in feed.items():
            if tuple(details[self._in[name]]["shape"]) != array.shape:
                self._interpreter.resize_tensor_input(self._in[name], array.shape)
                resized = True
        if resized:
            self._interpreter.allocate_tensors()
        for name, array in feed.items():
            self._interpreter.set_tensor(self._in[name], _narrowed(name, array, details[self._in[name]]["dtype"]))

    def step(self) -> None:
        """See `Session.step`."""
        self._interpreter.invoke()

    def streams(self, count: int) -> list[TfLiteSession]:
        """See `Streams.streams`: an interpreter for each, since one can't be used by two threads."""
        return [TfLiteSession(*self._opened) for _ in range(count)]

    def placement(self) -> dict[str, Any]:
        """See `Session.placement`.

        Raises:
            ConverterFailed: XNNPACK was asked for and took no node.
        """
        ops = self._interpreter._get_ops_details()
        plain = [op for op in ops if op["op_name"] != "DELEGATE"]
        taken = _delegated([op for op in ops if op["op_name"] == "DELEGATE"], plain)
        if self._delegate == "xnnpack" and not taken:
            raise ConverterFailed(
                "tflite with delegate=xnnpack", "the delegate took no node", "use the setting delegate=none"
            )
        dtypes = {int(d["index"]): d["dtype"].__name__ for d in self._interpreter.get_tensor_details()}
        heavy = Counter(_precision(op, dtypes) for op in plain if is_heavy(op["op_name"]))
        where = {"XNNPACK": len(taken), "builtin": len(plain) - len(taken)}
        return {
            "precision": majority(heavy, "fp32"),
            "asked": "XNNPACK" if self._delegate == "xnnpack" else "builtin",
            "where": {key: count for key, count in where.items() if count},
            "ops": dict(Counter(op["op_name"] for op in plain)),
            "heavy": dict(heavy),
        }

    def profile(self, runs: int) -> Profile:
        """See `Profiled.profile`; of `ai-edge-litert` alone, whose wheel brings a profiler."""
        path, settings, modules = self._opened
        module = _module(modules)
        version = version_of("ai-edge-litert")
        library = next(Path(module.__file__).parent.glob("libLiteRt.*"), None)
        if library is None or not version.startswith(litert_profile.VERSIONS):
            package = module.__name__.partition(".")[0].replace("_", "-")
            return without_times(f"{package} gives no times of operators")
        feed = {name: self._interpreter.get_tensor(index) for name, index in self._in.items()}
        threads = settings.get("threads", 1)
        recorded, parts = litert_profile.events(library, path, feed, threads, self._delegate, runs)
        nodes = [self._operators(litert_profile.summed(part)) for part in recorded]
        return profile_of(nodes, parts, f"LiteRT {version}'s profiler")

    def _operators(self, times: Sequence[tuple[litert_profile.Event, float]]) -> list[Operator]:
        """With the names and types of the file's tensors: XNNPACK tells kernels."""
        details = {int(d["index"]): d for d in self._interpreter.get_tensor_details()}
        dtypes = {index: d["dtype"].__name__ for index, d in details.items()}
        ops = self._interpreter._get_ops_details()
        plain = {op["index"]: op for op in ops if op["op_name"] != "DELEGATE"}
        taken = _delegated([op for op in ops if op["op_name"] == "DELEGATE"], list(plain.values()))
        there = [op for op in plain.values() if op["index"] in taken]
        tags = [event.tag for event, _ in times if event.kind == litert_profile.DELEGATED]
        positions = iter(litert_profile.joined(tags, [op["op_name"] for op in there]))
        found: list[Operator] = []
        for event, us in times:
            if event.kind == litert_profile.DELEGATED:
                at = next(positions)
                op, where = None if at is None else there[at], "XNNPACK"
                kind, precision = litert_profile.described(event.tag)
            else:
                op, where = plain.get(event.node) if event.subgraph == 0 else None, "builtin"
                kind, precision = event.tag, ""
            precision = precision or (_precision(op, dtypes) if op else "")
            name = details[int(op["outputs"][0])]["name"] if op and len(op["outputs"]) else ""
            found.append({"name": name, "op": kind, "where": where, "precision": precision, "us": us, "calls": 1.0})
        return found

    def close(self) -> None:
        """See `Session.close`."""
        self._interpreter = None


def _narrowed(name: str, array: ndarray, dtype: type) -> ndarray:
    """Whole numbers in the type that the file takes: converters narrow int64 to int32 where they can."""
    if array.dtype == dtype or array.dtype.kind not in "iu" or dtype.__name__ not in ("int32", "int64"):
        return array
    narrow: ndarray = array.astype(dtype)
    if (narrow != array).any():
        found = f"{name} holds numbers beyond {dtype.__name__}, which the file takes"
        raise UsageError("an input for tflite", found, "give smaller numbers")
    return narrow


def _module(modules: Sequence[str]) -> Any:
    here = [name for name in modules if importlib.util.find_spec(name)]
    return importlib.import_module(f"{(here or modules)[0]}.interpreter")


def _delegated(delegates: list[dict[str, Any]], plain: list[dict[str, Any]]) -> set[int]:
    """Indices of the operators that the delegates replaced: all between a delegate's inputs and its outputs."""
    maker = {int(out): op for op in plain for out in op["outputs"]}
    taken: set[int] = set()
    for delegate in delegates:
        borders = {int(i) for i in delegate["inputs"]}
        todo = [int(i) for i in delegate["outputs"]]
        while todo:
            op = maker.get(todo.pop())
            if op is None or op["index"] in taken:
                continue
            taken.add(op["index"])
            todo += [int(i) for i in op["inputs"] if int(i) not in borders]
    return taken


def _precision(op: dict[str, Any], dtypes: Mapping[int, str]) -> str:
    """Of an operator's weights and activations: int8 where both are."""
    types = [dtypes.get(int(index), "") for index in op["inputs"][:2]]
    if types == ["float32", "int8"]:
        return "int8 weights"
    words = {"float32": "fp32", "float16": "fp16", "uint8": "int8"}
    return words.get(types[0], types[0])


def _spec(name: str, detail: dict[str, Any]) -> TensorSpec:
    signature = detail.get("shape_signature", detail["shape"])
    shape = tuple(int(axis) if axis >= 0 else f"{name}.{i}" for i, axis in enumerate(signature))
    return TensorSpec(name, detail["dtype"].__name__, shape)
