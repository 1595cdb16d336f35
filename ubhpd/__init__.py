"""Unbiased head pose: read raw datasets, sample UBHPD, score with UBMAE."""

__version__ = "0.1.0"
