"""Tiny real models, bundles around them, and a lease of the tests' own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tiny import quiet_machine, write_bundle, write_chain

Model = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_lease(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEATRIAL_LEASE_DIR", str(tmp_path_factory.mktemp("lease")))


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """`model(name, repeat)` writes a tiny ONNX file."""
    return lambda name="a.onnx", repeat=2, size=64: write_chain(tmp_path / name, repeat, size)


@pytest.fixture
def bundle(tmp_path: Path) -> Model:
    """`bundle(name, repeat)` writes a tiny bundle."""
    return lambda name="bundle", repeat=2, output_error=0.0: write_bundle(tmp_path / name, repeat, output_error)


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[str], float]], None]:
    """`quiet(ms)`: see `quiet_machine`."""
    return lambda ms: quiet_machine(monkeypatch, ms)
