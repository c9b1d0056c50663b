"""Measurements behind the figures that the documentation gives; run from the repository's root."""
