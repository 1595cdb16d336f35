"""img2pose: faces and their six degrees of freedom at once, by a region-based detector; its predictions are submitted.

It is no model of head crops but a detector of all faces in an image (Faster R-CNN on a ResNet-18), trained on WIDER
FACE with poses derived from landmarks, so it is not built here. Code and weights are public, not for commercial use:
run them, and submit what they predict. The code gives a box and six numbers for each face, of which the first three are
the rotation vector (rx, ry, rz) in the camera of OpenCV: x right, y down, z away. Frame C of ubhpd is that turned by
180 degrees about x, so the vector there is (rx, -ry, -rz), and the quaternion of a face, with
a = sqrt(rx^2 + ry^2 + rz^2), is qw = cos(a / 2) and (qx, qy, qz) = sin(a / 2) / a (rx, -ry, -rz). Of several faces
take the one whose box overlaps bbox_xyxy of the head in OUT/pool.parquet most. Write img2pose.csv with the columns
sample_id, qx, qy, qz, qw, one row a head, and then:

    ubhpd submit img2pose.csv --check --protocol 300wlp_aflw2000_1969 --data OUT
    ubhpd submit img2pose.csv --name img2pose --protocol 300wlp_aflw2000_1969 --data OUT --out RESULTS \\
        --reported-as img2pose --trained-on "WIDER FACE" --input "whole image, 400 px" --year 2021 \\
        --code https://github.com/vitoralbiero/img2pose --license "CC BY-NC 4.0"

The first command checks ids and rotations, and its doctor says if signs or axes are exchanged: no weights were at hand,
so the frame above is read from the code and not measured.

The printed numbers: the released evaluation of AFLW2000 does not compare yaw, pitch and roll. It compares the three
numbers of rotation vectors, and its truth is a pose by solvePnP from the 68 points, not the published angles. So the
printed 4.27 is not on the scale of the other rows, and a submission may differ from it.
"""

TITLE = "img2pose"
PAPER = "Albiero et al.: img2pose: Face Alignment and Detection via 6DoF, Face Pose Estimation. CVPR 2021."
CODE = "https://github.com/vitoralbiero/img2pose"
LICENSE = "CC BY-NC 4.0"
KIND = "reported"
MODELS: dict[str, dict[str, object]] = {"img2pose": {}}
REPORTED = {"img2pose": "img2pose"}
