"""Automatic checks of heads, decisions of people, the review page, the leakage audit."""
