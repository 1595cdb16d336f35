"""The export formats: one file each, found by scanning this folder; files with a leading underscore are shared.

A format is a module with a CARD (`_job.Card`) and a function write(job), which writes all but the image files and
returns the names of the files written. One whose card says images="array" also has begin(job), which makes the file
that the workers put the pixels into, and says where in it they go.
"""

from ubhpd.core.registry import plugin_folders

__path__ = [*__path__, *plugin_folders("exports")]
