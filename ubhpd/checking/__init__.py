"""What may be wrong with heads and splits: checks, decisions of people, the review page, the leakage audit."""
