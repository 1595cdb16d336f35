"""Unbiased head pose: read raw datasets, sample UBHPD, score with UBMAE."""

import logging

__version__ = "0.1.0"

logging.getLogger(__name__).addHandler(logging.NullHandler())  # a program decides whether it shows the log
