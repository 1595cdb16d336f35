"""From runs to a table: one JSON per run, and the leaderboard that is made of such files alone."""
