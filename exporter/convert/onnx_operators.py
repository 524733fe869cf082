"""The operators of an ONNX graph, and those that somebody doesn't know."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

SIZES = ("Shape", "Size")


def every(graph: Any) -> Iterator[Any]:
    """All nodes, those in branches and loop bodies too."""
    for node in graph.node:
        yield node
        for inner in _inner(node):
            yield from every(inner)


def lasting(graph: Any) -> list[Any]:
    """Nodes that can't be folded once sizes are fixed: what goes into the graph decides what comes out of them."""
    return list(_lasting(graph, {value.name for value in graph.input} - {value.name for value in graph.initializer}))


def unknown(nodes: Iterator[Any] | list[Any], known: Collection[tuple[str, str]], who: str) -> list[str]:
    """A reason for each operator, as (domain, type), that isn't among the known ones."""
    found: dict[tuple[str, str], list[str]] = {}
    for node in nodes:
        if key(node) not in known:
            found.setdefault(key(node), []).append(node.name or f"the node of {', '.join(node.output)}")
    return [f"{who} has no operator {_named(*kind, names)}" for kind, names in found.items()]


def key(node: Any) -> tuple[str, str]:
    """Domain and type; the default domain has two names."""
    return "" if node.domain == "ai.onnx" else node.domain, node.op_type


def _lasting(graph: Any, live: set[str]) -> Iterator[Any]:
    for node in graph.node:
        inner = _inner(node)
        used = {*node.input, *(name for g in inner for each in every(g) for name in each.input)}
        if not used & live or node.op_type in SIZES:
            continue
        yield node
        live.update(node.output)
        for body in inner:
            # What a loop hands to its body changes with each round.
            yield from _lasting(body, live | {value.name for value in body.input})


def _inner(node: Any) -> list[Any]:
    return [graph for a in node.attribute for graph in (a.g, *a.graphs) if graph.node]


def _named(domain: str, kind: str, names: list[str]) -> str:
    more = f" and {len(names) - 1} more" * (len(names) > 1)
    return f"{kind}" + f" of the domain {domain}" * bool(domain) + f" ({names[0]}{more})"
