"""The readers of the raw datasets, one per file. `docs/add-a-dataset.md` explains what a file contains."""

from ubhpd.core.registry import plugin_folders

__path__ = [*__path__, *plugin_folders("builders")]
