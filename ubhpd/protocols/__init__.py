"""The fixed training and test sets of the literature."""
