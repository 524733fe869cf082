"""exporter/quantize."""
