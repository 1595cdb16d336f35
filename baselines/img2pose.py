"""img2pose: faces and their six degrees of freedom at once, by a region-based detector; printed numbers only.

Not trained here: it is a detector of all faces in an image (Faster R-CNN), trained on WIDER FACE with poses derived
from landmarks; to compare it on head crops would be another task. Code and weights must not be used commercially.
"""

TITLE = "img2pose"
PAPER = "Albiero et al.: img2pose: Face Alignment and Detection via 6DoF, Face Pose Estimation. CVPR 2021."
CODE = "https://github.com/vitoralbiero/img2pose"
LICENSE = "CC BY-NC 4.0"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"img2pose": {}}
REPORTED = {"img2pose": "img2pose"}
