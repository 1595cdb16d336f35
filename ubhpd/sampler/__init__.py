"""From a pool to UBHPD: targets, the floor, the choice of heads, the splits."""
