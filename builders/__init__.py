"""One raw dataset per file. `docs/add-a-dataset.md` says what a file holds."""
