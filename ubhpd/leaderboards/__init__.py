"""One JSON file per run, and the leaderboard that is made of these files alone."""
