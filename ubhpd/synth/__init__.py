"""Raw datasets written in their true layouts, with rendered heads of exactly known pose.

One module per dataset (`biwi`, `aflw`, `aflw2000`, `w300lp`, `upna`, `synhead`), each with a function `write`
that fills a folder as the original archive would and returns the truth: sample_id -> canonical yaw, pitch,
roll in degrees. Everything follows from the seed: same seed, same files.

A head is made in steps: `persons` says who it is, `skin` where its surface lies in 3-D and `shape` its landmarks,
`face`, `hair` and `body` make grids of it, `paint` and `features` its texture, `raster` finds what is seen in each
pixel, `render` lights it and `image` puts it before a background. `poses` says how the heads of a source are turned,
`job` and `rare` do the work of `ubhpd synth`. docs/synth.md describes it all.

Nothing is imported here: OpenCV and scipy load with the module that needs them.
"""

DATASETS = ("aflw", "aflw2000", "biwi", "synhead", "upna", "w300lp")
