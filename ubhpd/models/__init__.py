"""Models at work: the catalogue, checkpoints, weights of others, prediction."""
