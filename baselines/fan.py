"""FAN (12 points): landmarks of the face alignment network, the pose by solving for the camera; printed numbers only.

Not run here: the network's weights come from a download of its authors and not from a package registry, and no paper
says which 12 points were used. With landmarks of your own, in a manifest or a file (ubhpd landmarks), landmarks_pnp
solves for the pose in the same way.
"""

TITLE = "FAN (12 points)"
PAPER = "Bulat, Tzimiropoulos: How far are we from solving the 2D & 3D Face Alignment problem? ICCV 2017."
CODE = "https://github.com/1adrianb/face-alignment"
LICENSE = "BSD-3-Clause"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"fan": {}}
REPORTED = {"fan": "FAN (12 points)"}
