"""Text for a terminal, dataset cards, Croissant metadata and figures."""
