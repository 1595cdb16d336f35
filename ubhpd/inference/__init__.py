"""Runs models on heads and writes prediction files."""
