"""Training: heads with what is known of them, changed at random, in batches to a network."""
