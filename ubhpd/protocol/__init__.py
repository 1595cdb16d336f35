"""The fixed train and test sets of the literature, by name and hash."""
