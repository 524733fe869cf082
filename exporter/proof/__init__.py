"""exporter/proof."""
