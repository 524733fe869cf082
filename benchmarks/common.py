"""What the published tables share: a heading that says when, where and with what."""

from __future__ import annotations

import time
from importlib import metadata

PACKAGES = ("torch", "onnx", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "litert-torch", "numpy")


def heading(title: str, command: str, packages: tuple[str, ...] = PACKAGES) -> str:
    """Title, command, date, CPU, versions, as Markdown."""
    from seatrial.devices.facts import cpu_model, host_facts

    identity = host_facts()["identity"]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in packages)
    return (
        f"## {title}\n\n`{command}`, {time.strftime('%Y-%m-%d')}, {cpu_model()} ({identity['cores']} cores, "
        f"{', '.join(identity['flags'])}), {versions}.\n"
    )
