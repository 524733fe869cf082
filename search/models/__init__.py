"""From a candidate's values to its model: the graph's facts, a trained checkpoint, a source for the exporter."""
