"""The renderer of synthetic heads."""
