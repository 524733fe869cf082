"""exporter/sources."""
