"""One head pose model per file."""

from ubhpd.core.registry import plugin_folders

__path__ = [*__path__, *plugin_folders("models")]
