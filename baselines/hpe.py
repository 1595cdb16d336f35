"""HPE: ensembles in two stages, the angle by a regression over the most probable bins; printed numbers only.

Not trained here: no code was released, and the papers that quote the method say too little to build it; what "top k"
means in detail would be a guess. Two papers print its row with yaw and roll exchanged against each other.
"""

TITLE = "HPE"
PAPER = (
    "Huang, Chen, Xu, Zhang: Improving head pose estimation using two-stage ensembles with top-k regression. "
    "Image and Vision Computing 2020."
)
CODE = ""
LICENSE = "no code and no weights were released"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"hpe": {}}
REPORTED = {"hpe": "HPE"}
