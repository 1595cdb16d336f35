"""KEPLER: key points and pose by iterative regression of heat maps and visibility; its predictions are submitted.

Not trained here: no code was released, and the schedule of its iterations cannot be rebuilt from the paper alone. Who
has an implementation submits its predictions, kepler.csv with the columns sample_id, yaw, pitch and roll in degrees:

    ubhpd submit kepler.csv --check --protocol 300wlp_aflw2000_1969 --data OUT
    ubhpd submit kepler.csv --name KEPLER --protocol 300wlp_aflw2000_1969 --data OUT --out RESULTS \\
        --trained-on AFLW --year 2017

or runs it as an ONNX file; kepler.io.toml says how it takes crops and what its outputs mean, and the second command
proposes one from labelled heads:

    ubhpd predict --onnx kepler.onnx --io kepler.io.toml --manifest OUT --out kepler.csv
    ubhpd onnx inspect kepler.onnx --manifest OUT --out kepler.io.toml
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
