"""What every target promises, as one suite; a new target adds one class with its row."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from seatrial.core import samples
from seatrial.core.bundle import Bundle
from seatrial.core.errors import MissingPart, UsageError
from seatrial.devices.facts import cpu_flags
from seatrial.targets import Session, Target, for_file, get, names, require
from seatrial.targets.base import checked, is_heavy, majority

BARE = """
import sys
import numpy as np

SOURCE

feeds = np.load(sys.argv[2])
outputs = open_model(sys.argv[1])({name: feeds[name] for name in feeds.files})
np.savez(sys.argv[3], **outputs)
print(",".join(sorted(name.partition(".")[0] for name in sys.modules)))
"""


class Contract:
    """The suite. A row is a subclass that says what is this target's own."""

    name: ClassVar[str]
    where: ClassVar[set[str]]
    """What placement may name."""
    more: ClassVar[list[Mapping[str, Any]]] = []
    """Settings that open too, beside defaults, strict ones and choices."""
    same: ClassVar[dict[str, float]] = {"fp32": 80.0, "int8": 15.0}
    """dB between any two settings of one precision."""

    @pytest.fixture
    def target(self) -> Target:
        return require(self.name)

    @pytest.fixture(params=["fp32", "int8"])
    def bundle(self, request: pytest.FixtureRequest, bundles: Path) -> Bundle:
        return Bundle.read(bundles / f"{self.name}-{request.param}")

    @pytest.fixture
    def feed(self, bundle: Bundle) -> dict[str, np.ndarray]:
        return samples.load(bundle.golden[0])[0]

    @pytest.fixture
    def session(self, target: Target, bundle: Bundle) -> Iterator[Session]:
        session = target.open(bundle.model, bundle.settings)
        yield session
        session.close()

    def every(self, target: Target, precision: str) -> list[dict[str, Any]]:
        """Settings of this precision that must open."""
        found = [target.settings(precision, threads) for threads in (1, 2)] + [target.strict(precision)]
        for key, values in target.choices().items():
            found += [target.settings(precision) | {key: value} for value in values]
        return found + [target.settings(precision) | dict(more) for more in self.more]

    def test_it_is_found_by_name_and_by_file(self, target: Target, bundle: Bundle) -> None:
        assert self.name in names()
        assert get(self.name) is target
        assert target.name == self.name
        assert for_file(bundle.model.suffix) is target
        assert target.probe() is None
        assert re.match(r"\d+\.\d+", target.version())

    def test_specs_are_those_of_the_manifest(self, session: Session, bundle: Bundle) -> None:
        for specs, wanted in ((session.inputs, bundle.inputs), (session.outputs, bundle.outputs)):
            assert [(s.name, s.dtype, tuple(s.shape)) for s in specs] == [
                (w.name, w.dtype, tuple(w.shape)) for w in wanted
            ]

    def test_run_answers_what_was_packed(self, session: Session, bundle: Bundle) -> None:
        feeds, wanted = (samples.load(file) for file in bundle.golden)
        for feed, want in zip(feeds, wanted, strict=True):
            assert_close(session.run(feed), want, 120.0)

    def test_outputs_stay_valid_after_the_next_run(self, session: Session, feed: dict[str, np.ndarray]) -> None:
        first = session.run(feed)
        kept = {name: array.copy() for name, array in first.items()}
        session.run({name: -array for name, array in feed.items()})
        for name, array in first.items():
            np.testing.assert_array_equal(array, kept[name])

    def test_a_run_leaves_its_inputs_alone(self, session: Session, feed: dict[str, np.ndarray]) -> None:
        before = {name: array.copy() for name, array in feed.items()}
        session.run(feed)
        session.bind(feed)
        session.step()
        for name, array in before.items():
            np.testing.assert_array_equal(feed[name], array)

    def test_bind_and_step_compute_what_run_computes(self, session: Session, feed: dict[str, np.ndarray]) -> None:
        """The timed loop does the proven work: what it leaves in the bound outputs is what `run` answers."""
        wanted = session.run(feed)
        session.bind({name: np.zeros_like(array) for name, array in feed.items()})
        session.step()
        session.bind(feed)
        self.spoil_outputs(session)
        session.step()
        for name, array in self.bound_outputs(session).items():
            np.testing.assert_array_equal(array, wanted[name])

    def test_streams_compute_beside_each_other_what_run_computes(
        self, session: Any, feed: dict[str, np.ndarray]
    ) -> None:
        """Each has its own inputs and outputs, though the model may be shared."""
        other = {name: np.zeros_like(array) for name, array in feed.items()}
        wanted = [session.run(one) for one in (feed, other, feed)]
        found = session.streams(3)
        for one, bound in zip(found, (feed, other, feed), strict=True):
            one.bind(bound)
        threads = [threading.Thread(target=one.step) for one in found]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for one, outputs in zip(found, wanted, strict=True):
            assert_close(self.bound_outputs(one), outputs, 60.0)

    def bound_outputs(self, session: Any) -> dict[str, np.ndarray]:
        """What the last `step` left, by name, read where this runtime puts it."""
        raise NotImplementedError

    def spoil_outputs(self, session: Any) -> None:
        """Overwrite what the last `step` left with nonsense."""
        raise NotImplementedError

    def test_an_unknown_setting_or_value_is_refused(self, target: Target, bundle: Bundle) -> None:
        for settings in ({"colour": "red"}, {"threads": 0}, {"threads": "2"}, {"threads": True}, {"threads": 1.5}):
            with pytest.raises(UsageError):
                target.open(bundle.model, bundle.settings | settings)
        for key in target.choices():
            with pytest.raises(UsageError, match="no such value"):
                target.open(bundle.model, bundle.settings | {key: "surely not"})

    def test_settings_are_flat_data_with_threads(self, target: Target) -> None:
        for precision in ("fp32", "int8"):
            for settings in self.every(target, precision):
                assert json.loads(json.dumps(settings)) == settings
                assert "threads" in settings
                assert all(isinstance(value, str | int) for value in settings.values())

    def test_all_settings_open_and_agree(self, target: Target, bundle: Bundle, feed: dict[str, np.ndarray]) -> None:
        wanted = samples.load(bundle.golden[1])[0]
        for settings in self.every(target, bundle.precision):
            session = target.open(bundle.model, settings)
            assert_close(session.run(feed), wanted, self.same[bundle.precision])
            session.close()

    def test_placement_says_what_ran_and_where(
        self, session: Session, bundle: Bundle, feed: dict[str, np.ndarray]
    ) -> None:
        session.bind(feed)
        found = session.placement()
        assert found["precision"] == bundle.precision
        assert found["where"]
        assert set(found["where"]) <= self.where
        assert all(isinstance(count, int) and count > 0 for count in found["where"].values())
        assert json.loads(json.dumps(found)) == found

    def test_precisions_are_what_this_cpu_can(self, target: Target) -> None:
        able = target.precisions(cpu_flags())
        assert {"fp32", "int8"} <= set(able)
        assert "bf16" not in target.precisions(["avx2"])

    def test_the_example_runs_with_numpy_and_the_runtime_alone(
        self,
        target: Target,
        bundle: Bundle,
        feed: dict[str, np.ndarray],
        tmp_path: Path,
        bare_python: Callable[[str], list[str]],
    ) -> None:
        np.savez(tmp_path / "in.npz", **feed)  # type: ignore[arg-type]
        script = tmp_path / "script.py"
        script.write_text(BARE.replace("SOURCE", target.example(bundle.settings)))
        argv = [
            *bare_python(self.name),
            str(script),
            str(bundle.model),
            str(tmp_path / "in.npz"),
            str(tmp_path / "out.npz"),
        ]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        loaded = set(done.stdout.split(","))
        assert not loaded & {"seatrial", "torch", "onnx", "click", "scipy", "sqlalchemy"}
        with np.load(tmp_path / "out.npz") as found:
            assert_close({name: found[name] for name in found.files}, samples.load(bundle.golden[1])[0], 120.0)

    def test_a_broken_file_does_not_open(self, target: Target, tmp_path: Path) -> None:
        broken = tmp_path / f"model{target.suffix}"
        broken.write_bytes(b"no model" * 100)
        with pytest.raises(Exception):  # noqa: B017 - each runtime has its own
            target.open(broken, target.settings("fp32"))


class TestOnnxRuntime(Contract):
    name = "onnxruntime"
    where: ClassVar = {"CPUExecutionProvider"}
    more: ClassVar = [{"graph_optimization": "disabled"}]

    def bound_outputs(self, session: Any) -> dict[str, np.ndarray]:
        arrays = session._binding.copy_outputs_to_cpu()
        return dict(zip((spec.name for spec in session.outputs), arrays, strict=True))

    def spoil_outputs(self, session: Any) -> None:
        for value in session._binding.get_outputs():
            value.update_inplace(np.full(value.shape(), 777, np.float32))

    def test_int8_under_low_optimisation_is_named_as_it_ran(self, bundles: Path) -> None:
        """QDQ nodes that nothing fuses compute in float: placement must not call that int8."""
        bundle = Bundle.read(bundles / "onnxruntime-int8")
        session = require("onnxruntime").open(bundle.model, bundle.settings | {"graph_optimization": "disabled"})
        session.bind(samples.load(bundle.golden[0])[0])
        assert session.placement()["precision"] == "fp32"

    def test_an_interruption_changes_no_precision(self, bundles: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """Nodes are weighed by what they read and write: one run's times are anybody's."""
        bundle = Bundle.read(bundles / "onnxruntime-int8")
        session = require("onnxruntime").open(bundle.model, bundle.settings)
        session.bind(samples.load(bundle.golden[0])[0])
        ([*nodes], parts) = session._profiled(None)
        small = {**nodes[0][0]["args"], "op_name": "Conv", "input_type_shape": [{"float": [1]}]}
        small["output_type_shape"] = [{"float": [1]}]
        interrupted = {**nodes[0][0], "dur": 10**6, "args": small}
        monkeypatch.setattr(session, "_profiled", lambda _: ([[*nodes[0], interrupted]], parts))
        assert session.placement()["precision"] == "int8"


class TestOpenVino(Contract):
    name = "openvino"
    where: ClassVar = {"CPU"}
    more: ClassVar = [{"execution_mode": "performance"}]

    def bound_outputs(self, session: Any) -> dict[str, np.ndarray]:
        return {spec.name: session._request.get_tensor(spec.name).data.copy() for spec in session.outputs}

    def spoil_outputs(self, session: Any) -> None:
        for spec in session.outputs:
            session._request.get_tensor(spec.name).data[:] = 777

    def test_the_precision_is_pinned(self) -> None:
        target = require("openvino")
        assert target.settings("fp32")["inference_precision"] == "f32"
        assert target.settings("int8")["inference_precision"] == "f32"
        assert target.settings("bf16")["inference_precision"] == "bf16"
        assert "INFERENCE_PRECISION_HINT" in target.example(target.settings("fp32"))

    @pytest.mark.skipif(not {"avx512_bf16", "amx_bf16"} & set(cpu_flags()), reason="this CPU has no bf16")
    def test_bf16_is_named_where_it_ran(self, bundles: Path) -> None:
        bundle = Bundle.read(bundles / "openvino-fp32")
        session = require("openvino").open(bundle.model, bundle.settings | {"inference_precision": "bf16"})
        session.bind(samples.load(bundle.golden[0])[0])
        assert session.placement()["precision"] == "bf16"


class TestTfLite(Contract):
    name = "tflite"
    where: ClassVar = {"XNNPACK", "builtin"}
    more: ClassVar = [{"delegate": "reference"}]

    def bound_outputs(self, session: Any) -> dict[str, np.ndarray]:
        return {name: session._interpreter.get_tensor(index) for name, index in session._out.items()}

    def spoil_outputs(self, session: Any) -> None:
        for index in session._out.values():
            session._interpreter.tensor(index)()[:] = 777

    @pytest.mark.parametrize(("delegate", "where"), [("xnnpack", "XNNPACK"), ("none", "builtin")])
    def test_the_delegate_that_was_asked_for_is_the_one_that_ran(
        self, bundles: Path, delegate: str, where: str
    ) -> None:
        bundle = Bundle.read(bundles / "tflite-fp32")
        session = require("tflite").open(bundle.model, bundle.settings | {"delegate": delegate})
        session.bind(samples.load(bundle.golden[0])[0])
        assert max(session.placement()["where"], key=session.placement()["where"].__getitem__) == where


def assert_close(found: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray], bar_db: float) -> None:
    assert list(found) == list(wanted)
    for name, want in wanted.items():
        have = found[name]
        assert (have.dtype, have.shape) == (want.dtype, want.shape)
        noise = float(np.mean((have.astype(np.float64) - want) ** 2))
        power = float(np.mean(want.astype(np.float64) ** 2))
        assert noise == 0 or 10 * np.log10(power / noise) >= bar_db, f"{name}: {10 * np.log10(power / noise):.1f} dB"


def test_an_unknown_target_is_refused_with_the_nearest_names() -> None:
    with pytest.raises(UsageError) as error:
        get("onnxruntim")
    assert "did you mean onnxruntime?" in error.value.todo
    with pytest.raises(UsageError) as error:
        get("zzz")
    assert "did you mean" not in error.value.todo
    with pytest.raises(UsageError):
        for_file(".pt")


def test_a_target_that_is_not_installed_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    for name in ("onnxruntime", "openvino", "tflite"):
        with pytest.raises(MissingPart) as error:
            require(name)
        assert error.value.todo == f'pip install "seatrial[{name}]"'


def test_probing_all_targets_imports_no_runtime() -> None:
    code = (
        "import sys; from seatrial.targets import get, names; [(get(n).probe(), get(n).version()) for n in names()]; "
        "print(sorted({m.partition('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(re.findall(r"'(\w+)'", done.stdout))
    assert not loaded & {"numpy", "onnxruntime", "openvino", "ai_edge_litert", "torch", "onnx"}


def test_a_third_party_adds_a_target_by_an_entry_point(monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib import metadata

    from seatrial import targets

    point = metadata.EntryPoint("mine", "collections:OrderedDict", "seatrial.targets")
    monkeypatch.setattr(metadata, "entry_points", lambda group: [point] if group == "seatrial.targets" else [])
    caches = (targets._table, targets.get)
    for cache in caches:
        cache.cache_clear()
    try:
        assert names()[-1] == "mine"
        assert type(get("mine")).__name__ == "OrderedDict"
    finally:
        monkeypatch.undo()
        for cache in caches:
            cache.cache_clear()


def test_settings_are_checked_by_one_function() -> None:
    allowed = {"threads": None, "mode": ("a", "b")}
    assert checked("t", {"threads": 2, "mode": "a"}, allowed) == {"threads": 2, "mode": "a"}
    with pytest.raises(UsageError) as error:
        checked("t", {"mood": "a"}, allowed)
    assert "threads, mode" in error.value.todo


def test_heavy_operators_are_those_that_do_the_arithmetic() -> None:
    assert all(map(is_heavy, ("Conv", "FusedConv", "QLinearMatMul", "FULLY_CONNECTED", "Convolution", "Gemm")))
    assert not any(map(is_heavy, ("Convert", "ConvertLike", "Relu", "Reshape", "QuantizeLinear")))
    assert majority({"fp32": 1.0, "int8": 2.0}, "fp32") == "int8"
    assert majority({}, "fp32") == "fp32"
