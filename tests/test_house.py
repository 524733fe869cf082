"""The house holds: arrows point down, no circles, every folder is packed, one import name."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ["core", "targets", "devices", "exporter", "search", "cli"]
LIGHT = {"core", "targets", "devices/worker.py"}
"""What must import on a board that has numpy, psutil and one runtime."""
HEAVY = {"torch", "onnx", "onnxscript", "tensorflow", "nncf", "litert_torch", "ai_edge_quantizer", "timm"}


def modules() -> list[Path]:
    return [p for floor in FLOORS for p in sorted((ROOT / floor).rglob("*.py"))]


def imported(path: Path) -> list[tuple[str, bool]]:
    """What a module imports, as dotted names from the root for ours; and whether it does so when it is loaded."""
    package = path.relative_to(ROOT).parent.parts
    found = []
    tree = ast.parse(path.read_text())
    lazy = {
        id(inner)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _is_type_checking(node)
        for inner in ast.walk(node)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            if node.level:
                base = package[: len(package) - node.level + 1]
                name = ".".join([*base, *([node.module] if node.module else [])])
                names = [name] if node.module else [f"{name}.{a.name}".strip(".") for a in node.names]
                found += [(f"seatrial.{n}", id(node) not in lazy) for n in names]
            elif node.module:
                found.append((node.module, id(node) not in lazy))
        elif isinstance(node, ast.Import):
            found += [(alias.name, id(node) not in lazy) for alias in node.names]
    return found


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def test_no_floor_imports_one_above_it() -> None:
    up = []
    for path in modules():
        floor = FLOORS.index(path.relative_to(ROOT).parts[0])
        for name, _ in imported(path):
            parts = name.split(".")
            if parts[0] == "seatrial" and len(parts) > 1 and parts[1] in FLOORS and FLOORS.index(parts[1]) > floor:
                up.append(f"{path.relative_to(ROOT)} imports {name}")
    assert not up


def test_imports_make_no_circle() -> None:
    """Among the imports that happen when a module is loaded."""
    names = {".".join(("seatrial", *p.relative_to(ROOT).with_suffix("").parts)): p for p in modules()}
    graph = {name: {n for n, eager in imported(path) if eager and n in names} for name, path in names.items()}
    state: dict[str, int] = {}

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert state.get(name) != 1, " → ".join((*trail, name))
        if name not in state:
            state[name] = 1
            for other in sorted(graph[name]):
                visit(other, (*trail, name))
            state[name] = 2

    for name in sorted(graph):
        visit(name, ())


def test_light_floors_import_nothing_heavy() -> None:
    for path in modules():
        where = path.relative_to(ROOT)
        if where.parts[0] in LIGHT or str(where) in LIGHT:
            outside = {n.split(".")[0] for n, _ in imported(path)} & (HEAVY | {"click", "rich", "sqlalchemy", "scipy"})
            assert not outside, f"{where} imports {outside}"


def test_no_heavy_library_is_imported_when_a_module_is_loaded() -> None:
    for path in modules():
        eager = {n.split(".")[0] for n, now in imported(path) if now}
        assert not eager & HEAVY, f"{path.relative_to(ROOT)} imports {eager & HEAVY}"


def test_the_package_list_is_the_folders() -> None:
    packages = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(("seatrial", *p.parent.relative_to(ROOT).parts)) for p in modules() if p.name == "__init__.py"}
    assert set(packages) == found | {"seatrial"}


def test_only_two_modules_lie_at_the_root() -> None:
    assert {p.name for p in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_a_wheel_holds_every_module_and_data_file_under_one_name(tmp_path: Path) -> None:
    # A copy, because a build leaves a folder behind, and an old one would smuggle in what was deleted.
    left = shutil.ignore_patterns(".*", "build", "demo", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=left)
    command = [sys.executable, "-P", "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(source)]
    built = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert built.returncode == 0, built.stdout + built.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        files = {name for name in wheel.namelist() if ".dist-info/" not in name}
    data = [
        *ROOT.glob("exporter/templates/*"),
        *ROOT.glob("search/*.html"),
        *ROOT.glob("cli/*.toml"),
        *ROOT.glob("devices/*.toml"),
        ROOT / "py.typed",
    ]
    wanted = {f"seatrial/{p.relative_to(ROOT)}" for p in [*modules(), *data]}
    assert files == wanted | {"seatrial/__init__.py", "seatrial/__main__.py"}


def test_the_public_names_resolve() -> None:
    code = "import seatrial; print([getattr(seatrial, n) is not None for n in seatrial.__all__])"
    found = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    assert "False" not in found.stdout and found.returncode == 0, found.stderr


def test_help_and_import_load_nothing_heavy() -> None:
    code = "import sys, seatrial.cli\nseatrial.cli.main(['--help'])"
    spy = (
        f"import sys, atexit\natexit.register(lambda: print(sorted({{m.split('.')[0] for m in sys.modules}})))\n{code}"
    )
    found = subprocess.run([sys.executable, "-P", "-c", spy], capture_output=True, text=True)
    loaded = set(ast.literal_eval(found.stdout.splitlines()[-1]))
    assert "Commands" in found.stdout
    assert not loaded & (HEAVY | {"numpy", "scipy", "rich", "sqlalchemy", "psutil", "PIL"}), loaded
