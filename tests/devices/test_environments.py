"""Environments: found, made whole or not at all, known to be broken; and a runtime that lives in one."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from seatrial import targets
from seatrial.core import environments, process, samples
from seatrial.core.environments import TABLE, Environment
from seatrial.core.errors import ChildFailed, MissingPart, UsageError
from seatrial.devices import environments as making
from seatrial.devices.arms import Plan, arm_from_path
from seatrial.devices.facts import fingerprint
from seatrial.devices.sitting import Sitting
from seatrial.devices.store import Store

HERE = ".".join(map(str, sys.version_info[:2]))
SMALL = Environment("small", "only psutil", (HERE,), ("psutil==7.2.2",), ("psutil",), 1, 1, 9)
MAKE = f"""
import sys
from seatrial.core.environments import TABLE, Environment
from seatrial.core.process import end_all
from seatrial.devices.environments import make
TABLE["small"] = {SMALL!r}
try:
    print(make("small", say=lambda text: print(text, flush=True)), flush=True)
except KeyboardInterrupt:
    end_all()
    sys.exit(130)
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def small(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Environment:
    """An environment with one package of 300 kB: real, and soon made."""
    monkeypatch.setitem(TABLE, "small", SMALL)
    return SMALL


def making_small() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-P", "-c", MAKE], stdout=subprocess.PIPE, text=True)


def until(done: Callable[[], bool], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize("env", TABLE.values(), ids=TABLE)
def test_the_table_pins_everything(env: Environment) -> None:
    assert all(pin.count("==") == 1 and "*" not in pin for pin in env.pins)
    assert any(pin.startswith(("numpy==", "psutil==")) for pin in env.pins)
    assert all(tuple(map(int, python.split("."))) >= (3, 11) for python in env.pythons)  # they run our own code
    assert env.folder.name.startswith(f"{env.name}-")


def test_other_pins_are_another_folder(small: Environment) -> None:
    other = Environment("small", "", (HERE,), ("psutil==7.2.1",), ("psutil",), 1, 1, 1)
    assert other.folder != small.folder


def test_what_is_absent_is_an_error_with_the_command_and_nothing_is_made(cache: Path) -> None:
    with pytest.raises(MissingPart) as error:
        making.interpreter("onnx2tf", asked="the conversion onnx → tflite")
    assert error.value.asked == "the conversion onnx → tflite"
    assert error.value.todo.startswith("seatrial env create onnx2tf") and "77 MB to download" in error.value.todo
    if not targets.interpreter("tflite-runtime", {}):
        missing = targets.get("tflite-runtime").probe()
        assert missing and missing.todo.startswith("seatrial env create tflite-runtime") and "MB" in missing.todo
    assert not cache.exists()


def test_an_unknown_name_is_refused_with_the_nearest(cache: Path) -> None:
    for act in (making.make, making.remove, environments.ready):
        with pytest.raises(UsageError) as error:
            act("onx2tf")
        assert "did you mean onnx2tf?" in error.value.todo


def fake_python(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def test_a_python_is_found_where_it_runs_and_a_dead_shim_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Python 3.99, which can't be here otherwise: on PATH a shim as pyenv's that isn't selected, and the real one."""
    env = Environment("late", "", ("3.99",), ("psutil==7.2.2",), ("psutil",), 1, 1, 1)
    shim = fake_python(tmp_path / "bin/python3.99", 'echo "pyenv: python3.99: command not found" >&2; exit 127')
    monkeypatch.setenv("PATH", str(shim.parent))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(MissingPart) as error:
        making.find_python(env)
    assert f"{shim} (does not run)" in error.value.found and "3.99" in error.value.found
    assert "--python PATH" in error.value.todo
    wrong = fake_python(tmp_path / ".pyenv/versions/3.99.0/bin/python3.99", "echo 3.9.9")
    with pytest.raises(MissingPart) as error:
        making.find_python(env)
    assert f"{wrong} (is 3.9.9)" in error.value.found
    real = fake_python(tmp_path / "pyenv/versions/3.99.1/bin/python3.99", "echo 3.99.1")
    assert making.find_python(env) == real


def test_our_own_python_is_taken_where_it_fits(small: Environment) -> None:
    found = making.find_python(small)
    assert environments.version(found) == ".".join(map(str, sys.version_info[:3]))
    assert not (found.parent.parent / "pyvenv.cfg").exists()  # an environment that is removed takes none with it


def test_a_given_python_must_fit(small: Environment, tmp_path: Path) -> None:
    other = fake_python(tmp_path / "python", "echo 3.9.1")
    for python, words in ((other, "it is Python 3.9.1"), (tmp_path / "none", "not there"), (Path("/bin/cat"), "run")):
        with pytest.raises(UsageError) as error:
            making.make("small", python)
        assert words in error.value.found and f"Python {HERE}" in error.value.todo
    assert not small.folder.exists()


def test_interrupted_it_leaves_nothing_killed_it_is_made_again_and_two_make_one(small: Environment) -> None:
    first = making_small()
    until(lambda: small.folder.exists())
    first.send_signal(signal.SIGINT)
    assert first.wait(30) == 130
    assert not small.folder.exists()

    killed = making_small()
    until(lambda: small.folder.exists())
    killed.kill()
    killed.wait()
    found = environments.state(small)
    assert (found.kind, found.detail) == ("broken", "its creation did not end well")
    with pytest.raises(MissingPart) as error:
        environments.need("small", "a test")
    assert "broken" in error.value.found

    both = [making_small(), making_small()]
    told = [one.communicate(timeout=120)[0].splitlines() for one in both]
    assert [one.returncode for one in both] == [0, 0], told
    assert told[0][-1] == told[1][-1] == str(small.folder / "bin/python")
    assert sum("installing 1 packages" in "\n".join(lines) for lines in told) == 1
    assert sum("another process is making small" in "\n".join(lines) for lines in told) == 1
    assert environments.state(small).kind == "ready"

    assert making.remove("small") == [small.folder]
    assert environments.state(small).kind == "absent"
    assert [p.name for p in environments.home().iterdir()] == ["small.lock"]


def test_pip_that_fails_is_one_error_with_its_words_and_leaves_nothing(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    env = Environment("small", "", (HERE,), ("psutil==0.0.999",), ("psutil",), 1, 1, 1)
    monkeypatch.setitem(TABLE, "small", env)
    with pytest.raises(ChildFailed) as error:
        making.make("small")
    assert "No matching distribution found for psutil==0.0.999" in error.value.found
    assert error.value.log and Path(error.value.log).exists()
    assert environments.state(env).kind == "absent"


@pytest.fixture
def tflite_runtime(environment: Callable[[str], Path]) -> Path:
    return environment("tflite-runtime")


@pytest.fixture
def copied(tflite_runtime: Path, cache: Path) -> Environment:
    """The real environment once more, as a folder of links that may be spoilt."""
    env = TABLE["tflite-runtime"]
    source = tflite_runtime.parent.parent.resolve()
    env.folder.mkdir(parents=True)
    for name in ("pyvenv.cfg", environments.READY):
        shutil.copy(source / name, env.folder)
    (env.folder / "bin").mkdir()
    (env.folder / "bin/python").symlink_to((source / "bin/python").resolve())
    packages = env.folder / f"lib/python{env.pythons[0]}/site-packages"
    packages.mkdir(parents=True)
    for entry in (source / packages.relative_to(env.folder)).iterdir():
        (packages / entry.name).symlink_to(entry)
    assert environments.state(env).kind == "ready"
    return env


def test_what_was_changed_is_broken(copied: Environment) -> None:
    packages = next(copied.folder.glob("lib/*/site-packages"))
    (packages / "numpy-1.26.4.dist-info").rename(packages / "numpy-1.26.3.dist-info")
    found = environments.state(copied)
    assert found.kind == "broken"
    assert "numpy==1.26.4 is missing" in found.detail and "numpy==1.26.3 is in it" in found.detail
    assert targets.interpreter("tflite-runtime", {}) is None


def test_a_python_that_is_gone_is_broken(copied: Environment) -> None:
    link = copied.folder / "bin/python"
    link.unlink()
    link.symlink_to("/nowhere/python3.11")
    assert "does not run" in environments.state(copied).detail


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pins": []}'])
def test_a_seal_that_is_no_seal_is_broken(copied: Environment, text: str) -> None:
    (copied.folder / environments.READY).write_text(text)
    assert environments.state(copied).kind == "broken"


def test_env_list_and_remove(copied: Environment, main: Callable) -> None:
    old = copied.folder.with_name("tflite-runtime-00000000")
    old.mkdir()
    row = {row["name"]: row for row in json.loads(main("env", "list", "--json").out)}["tflite-runtime"]
    assert (row["state"], row["path"], row["old"]) == ("ready", str(copied.folder), [str(old)])
    assert row["disk_mb"] > 50 and row["python"].startswith("3.11.")
    shown = main("env", "list").out
    assert "ready" in shown and "seatrial env create onnx2tf" in shown and "never on Windows" in shown
    assert main("env", "create", "tflite-runtime").code == 0  # it is there
    gone = main("env", "remove", "tflite-runtime")
    assert gone.code == 0 and str(old) in gone.out and not copied.folder.exists()
    main("env", "remove", "tflite-runtime").fails(2, "it is not here")


IMPORTS = """
import importlib, json, pkgutil, sys
import seatrial.core, seatrial.targets
for package in (seatrial.core, seatrial.targets):
    for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        importlib.import_module(module.name)
import seatrial.devices.worker, seatrial.exporter.convert.onnx_tflite
print(json.dumps(sorted({name.partition(".")[0] for name in sys.modules})))
"""


def test_our_light_floors_import_there_with_numpy_1_and_nothing_of_ours_follows(tflite_runtime: Path) -> None:
    command = [str(tflite_runtime), "-P", "-c", IMPORTS]
    env = process.child_env(process.module_env(tflite_runtime))
    found = json.loads(subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout)
    assert not {"click", "rich", "scipy", "torch", "onnx", "pytest"} & set(found)
    asked = f"{IMPORTS}\ntry:\n    import click\nexcept ImportError:\n    print('alone')"
    done = subprocess.run([*command[:3], asked], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("alone\n")


@pytest.fixture(scope="module")
def bundle(bundles: Path, environment: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The classifier's own .tflite, proven and packed for `tflite-runtime`."""
    environment("tflite-runtime")
    folder = tmp_path_factory.mktemp("older")
    model = bundles / "tflite-fp32/model.tflite"
    command = [sys.executable, "-P", "-m", "seatrial", "export", str(model), "--target", "tflite-runtime", "-o", "out"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder / "out"


def test_a_bundle_is_proven_by_the_runtime_of_the_environment(bundle: Path) -> None:
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["tools"]["tflite-runtime"] == "2.14.0"
    example = (bundle / "example.py").read_text()
    assert "tflite_runtime" in example and "ai_edge_litert" not in example


def test_its_own_scripts_run_in_the_environment(bundle: Path, tflite_runtime: Path) -> None:
    for script in ("selftest.py", "example.py"):
        done = subprocess.run([str(tflite_runtime), "-I", str(bundle / script)], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


def test_run_and_verify_go_through_the_environment(bundle: Path, main: Callable, tmp_path: Path) -> None:
    assert "ok" in main("verify", bundle).out
    feed = samples.load(bundle / "golden/inputs.npz")[0]
    np.savez(tmp_path / "in.npz", **feed)
    ran = main("run", bundle, tmp_path / "in.npz", "-o", tmp_path / "out.npz")
    assert ran.code == 0 and "tflite-runtime fp32" in ran.out, ran.err
    wanted = samples.load(bundle / "golden/outputs.npz")[0]
    for name, array in np.load(tmp_path / "out.npz").items():
        np.testing.assert_array_equal(array, wanted[name])


def test_facts_are_those_of_the_environments_runtime(bundle: Path, bundles: Path, tmp_path: Path) -> None:
    arms = [
        arm_from_path(path, tmp_path / f"{name}.npz", name)
        for name, path in (("old", bundle), ("new", bundles / "tflite-fp32"))
    ]
    with closing(Store(tmp_path / "facts.db")) as store:
        with Sitting(Plan(rounds=1, warm_s=0.01), store=store) as sitting:
            launch = sitting.launch(arms)
        assert all(run.ok for run in launch.arms.values()), launch.arms
        rows = {row["arm"]: row for row in store.find(session=sitting.session)}
    runtimes = {name: row["facts"]["runtime"] for name, row in rows.items()}
    assert runtimes["old"] == {"name": "tflite-runtime", "version": "2.14.0"}
    assert runtimes["new"]["name"] == "tflite" and runtimes["new"]["version"] != "2.14.0"
    assert rows["old"]["fingerprint"] == fingerprint(sitting.facts, runtimes["old"])
    assert launch.arms["old"].placement and launch.arms["old"].placement["where"]["XNNPACK"] > 0


def test_a_session_in_another_interpreter_keeps_the_contract(bundle: Path) -> None:
    from seatrial.core.bundle import Bundle
    from seatrial.devices.sessions import open_session

    packed = Bundle.read(bundle)
    session = open_session(packed.target, packed.model, packed.settings)
    feeds, wanted = (samples.load(file) for file in packed.golden)
    assert [str(spec) for spec in session.inputs] == [f"{s.name}: {s.dtype}[1, 3, 16, 16]" for s in packed.inputs]
    for feed, want in zip(feeds, wanted, strict=True):
        for name, array in session.run(feed).items():
            np.testing.assert_array_equal(array, want[name])
    session.bind(feeds[0])
    session.step()
    assert session.placement()["precision"] == "fp32"
    session.close()


def test_where_it_is_missing_run_says_what_to_type(bundle: Path, main: Callable, cache: Path, tmp_path: Path) -> None:
    np.savez(tmp_path / "in.npz", **samples.load(bundle / "golden/inputs.npz")[0])
    for words in (("run", bundle, tmp_path / "in.npz"), ("verify", bundle), ("bench", bundle)):
        main(*words).fails(5, "no environment tflite-runtime", "seatrial env create tflite-runtime")
