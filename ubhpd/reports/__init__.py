"""Reports for the terminal, dataset cards, Croissant metadata and figures."""
