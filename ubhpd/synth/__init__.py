"""Raw datasets written in their true layouts, with drawn heads of exactly known pose.

One module per dataset (`biwi`, `aflw`, `aflw2000`, `w300lp`, `upna`, `synhead`), each with a function `write`
that fills a folder as the original archive would and returns the truth: sample_id -> canonical yaw, pitch,
roll in degrees. `shape` is the head in 3-D, `heads` its poses and projections, `picture` the drawing.
Everything follows from the seed: same seed, same files.

Nothing is imported here: OpenCV and scipy load with the module that needs them.
"""

DATASETS = ("aflw", "aflw2000", "biwi", "synhead", "upna", "w300lp")
