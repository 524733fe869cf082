"""Where sessions run: workers, the comparison engine, its statistics and gate, and the store of facts."""
