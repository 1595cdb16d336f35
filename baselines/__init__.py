"""One head pose model per file."""
