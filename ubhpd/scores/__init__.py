"""From predictions to scores: reading, pairing, scoring, intervals, comparison, doctor."""
