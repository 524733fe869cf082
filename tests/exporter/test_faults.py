"""Faults while an export runs: disks, converters, signals. One clear error, and nothing half-written or running."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest

pytest.importorskip("onnxruntime")

MARK = "SEATRIAL_TEST_MARK"


def snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


@pytest.fixture
def here(tmp_path: Path, tiny_onnx: Callable[..., Path]) -> Path:
    """A working folder with a good model, and the cache beside it."""
    folder = tmp_path / "here"
    folder.mkdir()
    tiny_onnx(folder / "good.onnx")
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The work folders of this test's commands."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/seatrial/runs"


def big_onnx(path: Path, megabytes: int) -> Path:
    """The tiny model with a large constant that nothing uses up: its second output."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = numpy_helper.from_array(rng.standard_normal((8, megabytes << 15)).astype(np.float32), "w")
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 8]),
        helper.make_tensor_value_info("y", TensorProto.FLOAT, [1]),
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["m"]),
        helper.make_node("ReduceMean", ["m"], ["y"], axes=[1], keepdims=0),
    ]
    graph = helper.make_graph(nodes, "big", ends[:1], ends[1:], [weights])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), str(path))
    return path


# The output folder


def test_an_output_that_exists_is_kept_unless_overwrite_is_given(cli, here: Path, exported: Path):
    shutil.copytree(exported, here / "out")
    before = snapshot(here)
    cli("export", "good.onnx", "-o", "out", cwd=here).fails(2, "the output out", "it exists", "--overwrite")
    assert snapshot(here) == before


def test_overwrite_replaces_the_whole_old_bundle(cli, here: Path, exported: Path):
    shutil.copytree(exported, here / "out")
    (here / "out/left-over").touch()
    done = cli("export", "good.onnx", "-o", "out", "--overwrite", cwd=here)
    assert done.code == 0, done.err
    assert sorted(p.name for p in here.iterdir()) == ["good.onnx", "out"]
    assert not (here / "out/left-over").exists()
    assert cli("verify", "out", cwd=here).code == 0


def test_overwrite_never_replaces_what_is_not_ours(cli, here: Path):
    (here / "thesis").mkdir()
    (here / "thesis/chapter").write_text("years of work")
    before = snapshot(here)
    done = cli("export", "good.onnx", "-o", "thesis", "--overwrite", cwd=here)
    done.fails(2, "not made by seatrial", "nothing was touched")
    assert snapshot(here) == before


def test_a_failing_export_leaves_the_old_bundle_untouched(cli, here: Path, exported: Path):
    shutil.copytree(exported, here / "out")
    (here / "bad.onnx").write_bytes((here / "good.onnx").read_bytes()[:60])
    before = snapshot(here)
    cli("export", "bad.onnx", "-o", "out", "--overwrite", cwd=here).fails(2, "bad.onnx")
    assert snapshot(here) == before


def test_an_output_below_a_file_is_refused_before_work_starts(cli, here: Path):
    done = cli("export", "good.onnx", "-o", "good.onnx/out", cwd=here)
    done.fails(5, "the output good.onnx/out", "is not a folder", "choose another -o")
    assert "reading" not in done.err


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc here")
def test_an_output_in_proc_is_refused_before_work_starts(cli, here: Path):
    done = cli("export", "good.onnx", "-o", "/proc/out", cwd=here)
    done.fails(5, "the output /proc/out", "/proc is not writable")
    assert "reading" not in done.err


def powerless() -> tuple[str, ...]:
    """A prefix that takes root's right to pass over permissions; nothing for everybody else."""
    if os.getuid() != 0:
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("root may write everywhere, and setpriv isn't there to take that right away")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")


def test_a_folder_without_permission_is_refused_before_work_starts(cli, here: Path):
    prefix = powerless()
    (here / "locked").mkdir(mode=0o555)
    (here / "closed").mkdir(mode=0o000)
    try:
        for name, word in (("locked", "locked is not writable: Permission denied"), ("closed", "Permission denied")):
            done = cli("export", "good.onnx", "-o", f"{name}/out", cwd=here, prefix=prefix)
            done.fails(5, f"the output {name}/out", word, "-o")
            assert "reading" not in done.err
    finally:
        (here / "closed").chmod(0o755)


def test_files_that_may_not_be_read_are_named_as_such(cli, here: Path, exported: Path):
    prefix = powerless()
    shutil.copytree(exported, here / "bundle")
    (here / "bundle/model.onnx").chmod(0)
    (here / "good.onnx").chmod(0)
    cli("export", "good.onnx", "-o", "o", cwd=here, prefix=prefix).fails(2, "it can't be read: Permission denied")
    cli("verify", "bundle", cwd=here, prefix=prefix).fails(1, "model.onnx can't be read: Permission denied")
    (here / "bundle").chmod(0)
    try:
        cli("verify", "bundle", cwd=here, prefix=prefix).fails(2, "bundle", "not readable")
        cli("export", "bundle/x.onnx", cwd=here, prefix=prefix).fails(2, "bundle/x.onnx", "Permission denied")
        (here / "good.onnx").chmod(0o644)
        calibrated = ["export", "good.onnx", "--precision", "int8", "--calibration", "bundle"]
        cli(*calibrated, cwd=here, prefix=prefix).fails(2, "--calibration", "not readable")
    finally:
        (here / "bundle").chmod(0o755)


# Disks that fill up


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(folder)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a small disk can't be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_full_output_disk_is_named_and_the_old_bundle_stays(cli, here: Path, small_disk: Path, exported: Path):
    shutil.copytree(exported, small_disk / "out")
    before = snapshot(small_disk)
    big_onnx(here / "big.onnx", 3)
    for option in (["-o", small_disk / "new"], ["-o", small_disk / "out", "--overwrite"]):
        done = cli("export", "big.onnx", *option, cwd=here)
        done.fails(5, f"the output {small_disk}", "No space left on device", "free some room")
        assert snapshot(small_disk) == before


@pytest.mark.parametrize("left_kb", [0, 8, 1000])
def test_a_full_work_disk_is_named_wherever_it_fills_up(cli, here: Path, small_disk: Path, left_kb: int):
    big_onnx(here / "big.onnx", 3)
    (small_disk / "filler").write_bytes(bytes((2 << 20) - (left_kb << 10)))
    before = snapshot(here)
    done = cli("export", "big.onnx", "-o", "out", cwd=here, env={"XDG_CACHE_HOME": str(small_disk)})
    done.fails(5, "room")
    assert "No space left" in done.err or "could not be written" in done.err
    assert snapshot(here) == before
    assert not list(small_disk.rglob("*.onnx"))


def test_a_file_that_may_not_grow_is_named(cli, here: Path):
    """The same without a disk of its own: files of more than a megabyte are refused by the system."""
    big_onnx(here / "big.onnx", 3)
    before = snapshot(here)
    limit = 1 << 20
    done = cli(
        "export",
        "big.onnx",
        "-o",
        "out",
        cwd=here,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    done.fails(5, "File too large", "room")
    assert snapshot(here) == before


def test_results_of_run_appear_whole_or_not_at_all(cli, here: Path, exported: Path, small_disk: Path):
    np.savez(here / "x.npz", x=np.ones((1, 8), np.float32))
    (small_disk / "out.npz").write_text("old")
    (small_disk / "filler").write_bytes(bytes((2 << 20) - (4 << 10)))
    before = snapshot(small_disk)
    cli("run", exported, here / "x.npz", "-o", small_disk / "out.npz").fails(5, "out.npz", "No space left", "room")
    assert snapshot(small_disk) == before


# Converters


FAULTY = """
import ctypes, os, subprocess, sys, time
from pathlib import Path


def segfault(source, out, program):
    Path(out).write_text("half")
    ctypes.string_at(0)


def hang(source, out, program):
    Path(out).write_text("half")
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)


def greedy(source, out, program):
    held = []
    while True:
        held.append(bytearray(b"x" * (16 << 20)))
        time.sleep(0.005)


def raising(source, out, program):
    Path(out).write_text("half")
    raise NotImplementedError("operator Foo is beyond me")


def leaving(source, out, program):
    sys.exit("I am done")


def idle(source, out, program):
    return {}


def garbage(source, out, program):
    Path(out).write_text("this is no model")


def slow(source, out, program):
    print("slow", flush=True)
    subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    time.sleep(600)
"""

DRIVER = """
import sys
from dataclasses import replace

from seatrial import cli
from seatrial.exporter import convert

convert.STEPS[:] = [
    replace(step, function="faulty:" + sys.argv[1]) if step.label == "onnx → openvino" else step
    for step in convert.STEPS
]
cli.main(sys.argv[2:])
"""


@pytest.fixture
def faulty(here: Path, tmp_path: Path, needs) -> Callable[..., list[str]]:
    """The command line of an export whose converter to OpenVINO has a fault."""
    needs("openvino")
    folder = tmp_path / "faults"
    folder.mkdir()
    (folder / "faulty.py").write_text(FAULTY)
    (folder / "driver.py").write_text(DRIVER)

    def command(fault: str, *options: str) -> list[str]:
        argv = [sys.executable, "-P", str(folder / "driver.py"), fault]
        return [*argv, "export", "good.onnx", "--target", "openvino", "-o", "out", *options]

    command.env = {"PYTHONPATH": str(folder)}  # type: ignore[attr-defined]
    return command


@pytest.mark.parametrize(
    ("fault", "options", "words"),
    [
        ("segfault", [], ["the conversion onnx → openvino", "SIGSEGV"]),
        ("hang", ["--timeout", "10"], ["the conversion onnx → openvino", "no end after 10 s", "--timeout"]),
        ("greedy", ["--memory", "0.5"], ["the conversion onnx → openvino", "limit 0.50 GiB", "--memory"]),
        ("raising", [], ["the conversion onnx → openvino", "NotImplementedError: operator Foo is beyond me"]),
        ("leaving", [], ["the conversion onnx → openvino", "I am done"]),
        ("idle", [], ["the conversion onnx → openvino", "wrote no model.xml"]),
    ],
)
def test_a_faulty_converter_is_named_and_leaves_nothing(
    here: Path, cache: Path, faulty, fault: str, options: list[str], words: list[str]
):
    before = snapshot(here)
    with marked(faulty.env) as env:
        done = subprocess.run(faulty(fault, *options), cwd=here, env=env, capture_output=True, text=True, timeout=100)
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr
        assert "unexpected error" not in done.stderr
        for word in [*words, "\n  found: ", "\n  log: ", "\n  to do: "]:
            assert word in done.stderr, done.stderr
        log = done.stderr.rpartition("log:")[2].split()[0]
        assert Path(log).is_file()
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before
    assert {p.suffix for p in cache.rglob("*") if p.is_file()} <= {".txt", ".md"}


def test_a_product_that_the_runtime_cannot_open_is_named_with_its_hop(here: Path, faulty):
    before = snapshot(here)
    env = {**os.environ, **faulty.env}
    done = subprocess.run(faulty("garbage"), cwd=here, env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 5
    assert "error: good for openvino, fp32\n  found: hop: runtime (openvino); " in done.stderr
    assert "\n  to do: " in done.stderr
    assert snapshot(here) == before


# Signals


class marked:
    """An environment that all descendants of a command carry, so that what is left of it can be found and ended."""

    def __init__(self, env: dict[str, str] | None = None) -> None:
        self.env = {**os.environ, **(env or {}), MARK: os.urandom(8).hex()}

    def __enter__(self) -> dict[str, str]:
        return self.env

    def __exit__(self, *exc: object) -> None:
        for process in left(self.env[MARK]):
            process.kill()


def left(mark: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == mark:
                found.append(process)
        except psutil.Error:
            continue
    return found


def assert_nobody_left(mark: str, seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while found := left(mark):
        assert time.monotonic() < end, [p.cmdline() for p in found]
        time.sleep(0.05)


def wait_for_line(process: subprocess.Popen[str], word: str) -> str:
    seen = ""
    assert process.stderr
    for line in process.stderr:
        seen += line
        if word in line:
            return seen
    raise AssertionError(f"{word!r} never came:\n{seen}")


def interrupt(
    argv: list[str], env: dict[str, str], cwd: Path, word: str, delay_s: float, signum: int
) -> tuple[int, str]:
    """Send a signal some time after a word was printed; the exit code and all of stderr."""
    process = subprocess.Popen(argv, cwd=cwd, env=env, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    try:
        seen = wait_for_line(process, word) if word else ""
        time.sleep(delay_s)
        process.send_signal(signum)
        return_code = process.wait(60)
        assert process.stderr
        return return_code, seen + process.stderr.read()
    finally:
        process.kill()
        process.wait()


EXPORT = [sys.executable, "-P", "-m", "seatrial", "export", "good.onnx", "-o", "out", "--overwrite"]


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("word", "delay_s"), [("reading", 0), ("reading", 0.2), ("proving", 0), ("proving", 0.05)])
def test_an_interrupt_at_any_point_leaves_the_old_bundle_and_nothing_else(
    here: Path, cache: Path, exported: Path, word: str, delay_s: float, signum: int
):
    shutil.copytree(exported, here / "out")
    before = snapshot(here)
    with marked() as env:
        code, err = interrupt(EXPORT, env, here, word, delay_s, signum)
        assert code == 130, err
        assert err.strip().endswith("interrupted")
        assert "Traceback" not in err
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before
    assert not list(cache.glob("*"))


PACKING = """
import sys, time

from seatrial import cli
from seatrial.core import ids
from seatrial.exporter import pack

whole = pack._golden


def slowly(part, *rest):
    whole(part, *rest)
    print("packing", file=sys.stderr, flush=True)
    time.sleep(60)


pack._golden = slowly
cli.main(sys.argv[1:])
"""


def test_an_interrupt_while_packing_leaves_no_half_written_bundle(here: Path, cache: Path, tmp_path: Path):
    (tmp_path / "packing.py").write_text(PACKING)
    argv = [sys.executable, "-P", str(tmp_path / "packing.py"), *EXPORT[4:]]
    before = snapshot(here)
    with marked() as env:
        code, err = interrupt(argv, env, here, "packing", 0.1, signal.SIGINT)
        assert code == 130, err
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before
    assert not list(cache.glob("*"))


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_a_converter_and_what_it_started(here: Path, cache: Path, faulty, signum: int):
    before = snapshot(here)
    with marked(faulty.env) as env:
        code, err = interrupt(faulty("slow"), env, here, "converting", 1.0, signum)
        assert code == 130, err
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before
    assert not list(cache.glob("*"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's own word on a parent's death is Linux's")
def test_a_killed_export_leaves_no_process_and_no_output(here: Path, cache: Path, faulty):
    before = snapshot(here)
    with marked(faulty.env) as env:
        code, err = interrupt(faulty("slow"), env, here, "converting", 1.0, signal.SIGKILL)
        assert code == -signal.SIGKILL, err
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before


def test_an_interrupt_ends_a_capture_and_a_converter_that_started_early(
    here: Path, cache: Path, torch_file: Path, needs
):
    """torch → tflite starts its converter while the capture is running: two children at once."""
    needs("torch", "litert_torch")
    shutil.copy(torch_file, here / "tiny.py")
    before = snapshot(here)
    argv = [*EXPORT[:5], "tiny.py", "--target", "tflite", "-o", "out"]
    with marked() as env:
        process = subprocess.Popen(argv, cwd=here, env=env, stderr=subprocess.PIPE, text=True)
        wait_for_line(process, "capturing")
        end = time.monotonic() + 60
        while len([p for p in left(env[MARK]) if "seatrial.core.child" in p.cmdline()]) < 2:
            assert time.monotonic() < end
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 130
        assert_nobody_left(env[MARK])
    assert snapshot(here) == before
    assert not list(cache.glob("*"))


def test_progress_and_noise_never_reach_the_json(here: Path, cli):
    done = cli("export", "good.onnx", "-o", "out", "--json", cwd=here)
    assert done.code == 0, done.err
    assert [one["target"] for one in json.loads(done.out)] == ["onnxruntime"]
