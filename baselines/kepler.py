"""KEPLER: key points and pose by iterative regression of heat maps and visibility; printed numbers only.

Not trained here: no code was released, and the schedule of its iterations cannot be rebuilt from the paper alone.
"""

TITLE = "KEPLER"
PAPER = (
    "Kumar, Alavi, Chellappa: KEPLER: Simultaneous Estimation of Keypoints and 3D Pose of Unconstrained Faces in a "
    "Unified Framework by Learning Efficient H-CNN Regressors. FG 2017."
)
CODE = ""
LICENSE = "no code and no weights were released"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"kepler": {}}
REPORTED = {"kepler": "KEPLER"}
