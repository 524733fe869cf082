"""exporter/convert."""
