"""Trains and evaluates models on protocols: one result file per run."""
