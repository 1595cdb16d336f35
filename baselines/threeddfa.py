"""3DDFA: a dense 3-D face model fitted by a cascade of networks, the pose read off it; printed numbers only.

Not run here: the cascade of 2016 renders the face model between its networks, the Basel Face Model, whose licence
allows research only and does not allow passing it on, and its weights are not at hand. The second version of 2020 needs
neither: it is the model threeddfa_v2, with its released weights. Its error is no reproduction of the printed one.
"""

TITLE = "3DDFA"
PAPER = "Zhu, Lei, Liu, Shi, Li: Face Alignment Across Large Poses: A 3D Solution. CVPR 2016."
CODE = "https://github.com/cleardusk/3DDFA"
LICENSE = "code MIT; the face model it needs is for research only"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"threeddfa": {}}
REPORTED = {"threeddfa": "3DDFA"}
