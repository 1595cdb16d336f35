"""From a prediction file to scores, intervals, comparison and diagnosis."""
