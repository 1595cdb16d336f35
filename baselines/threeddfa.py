"""3DDFA: a dense 3-D face model fitted by a cascade of networks, the pose read off it; printed numbers only.

Not run here: the pose is a by-product of a fit of the Basel Face Model, whose licence allows research only and does not
allow passing it on, and the published weights cannot be had from a package registry.
"""

TITLE = "3DDFA"
PAPER = "Zhu, Lei, Liu, Shi, Li: Face Alignment Across Large Poses: A 3D Solution. CVPR 2016."
CODE = "https://github.com/cleardusk/3DDFA"
LICENSE = "code MIT; the face model it needs is for research only"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"threeddfa": {}}
REPORTED = {"threeddfa": "3DDFA"}
