"""QuatNet: quaternions by ordinal and plain regression at once; printed numbers only.

Not trained here: the abstract says that an ordinal regression on angles guides an L2 regression of quaternions, but
backbone, thresholds and weights of the loss are in no available source, and no code was released. A network of that
name with guessed numbers would be another method. Its row in table 1 of OsGG-Net has yaw and roll exchanged; the MAE is
not affected.
"""

TITLE = "QuatNet"
PAPER = (
    "Hsu, Wu, Wan, Wong, Lee: QuatNet: Quaternion-Based Head Pose Estimation With Multiregression Loss. "
    "IEEE Transactions on Multimedia 2019."
)
CODE = ""
LICENSE = "no code and no weights were released"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"quatnet": {}}
REPORTED = {"quatnet": "QuatNet"}
