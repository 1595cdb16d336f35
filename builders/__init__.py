"""The readers of the raw datasets, one per file. `docs/add-a-dataset.md` explains what a file contains."""
