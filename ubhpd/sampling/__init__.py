"""From a pool to UBHPD: targets, lower bound, choice of heads, splits."""
