"""One command per file: it holds `command`, and imports what is heavy inside it. A file that begins with _ is none."""
