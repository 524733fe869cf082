"""Blame by layer: the error of an artifact along the depth of the network, and the first module that is wrong."""

from .depth import Culprit, Depth, Row, table
from .explain import explain
from .picture import picture

__all__ = ["Culprit", "Depth", "Row", "explain", "picture", "table"]
