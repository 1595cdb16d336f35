"""From raw datasets to a pool: units, the build, what is in it, and how it compares with the published."""
