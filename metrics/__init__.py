"""One family of metrics per file: pure functions, arrays in, numbers out."""
