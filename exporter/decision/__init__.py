"""The decision rule in the graph: softmax(scores / T) → expected cost → argmin, behind an artifact's own outputs.

The rule is appended to the artifact's file: nothing is converted or quantized again. What the classifier gave before
stays an output; ``expected_cost`` (n, decisions) and ``decision`` (n,) come beside it.
"""

from __future__ import annotations

from .costs import Costs, check_costs, read_costs
from .decide import Decided, decide
from .rule import COST, DECISION, Rule, fitted

__all__ = ["COST", "DECISION", "Costs", "Decided", "Rule", "check_costs", "decide", "fitted", "read_costs"]
