"""The face detectors by name: mtcnn, yunet, cascade, none, and auto, which takes the best that is there.

The weights of MTCNN are three small files in the wheel of facenet-pytorch. That package pins a torch of its own, so it
is neither a dependency nor ever imported: its files are only read, from the installed package, a wheel or a folder.
That code is here and not in mtcnn.py, because the other detectors have to work without torch.
"""

from __future__ import annotations

import os
import zipfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ubhpd.core.errors import UbhpdError, shortened
from ubhpd.core.files import user_folder
from ubhpd.core.registry import chosen
from ubhpd.core.typing import Image
from ubhpd.images.faces import MTCNN_INSTALL, Detector, Face, keep_apart, largest_first

DETECTORS = ("auto", "mtcnn", "yunet", "cascade", "none")

FRONTAL, PROFILE = "haarcascade_frontalface_alt2.xml", "haarcascade_profileface.xml"
DEBIAN_FOLDERS = (Path("/usr/share/opencv4/haarcascades"), Path("/usr/share/opencv/haarcascades"))

MTCNN_NETWORKS = ("pnet", "rnet", "onet")
MTCNN_VARIABLE = "UBHPD_MTCNN"

YUNET_VARIABLE = "UBHPD_YUNET"
YUNET_FILE = "face_detection_yunet_2023mar.onnx"
_YUNET_SCORE, _YUNET_OVERLAP, _YUNET_FACES = 0.6, 0.3, 5000  # of OpenCV's own demo, with more patience

_MAX_BYTES = 64 << 20  # of a weight file: the largest has 1.6 MB

_STEP = 1.1  # between the sizes at which a cascade looks
_NEIGHBOURS = 3  # raw boxes that must agree on a face
_SMALLEST_PX = 24
_OVERLAP = 0.3  # above it a profile and a frontal box are one face


def detector(name: str = "auto", mtcnn_weights: str | os.PathLike[str] | None = None) -> Detector:
    """Return a face detector.

    Args:
        name: of DETECTORS. "auto" is mtcnn where torch and its weights are found, else cascade.
        mtcnn_weights: wheel, zip or folder; by default the variable UBHPD_MTCNN, else the installed facenet-pytorch.

    Raises:
        UbhpdError: an unknown name, or what the detector needs is not there; the sentence says what to install.
    """
    name = chosen(DETECTORS, name, "face detector")
    if name == "none":
        return WholeImage()
    if name == "cascade":
        return Cascade()
    if name == "yunet":
        return YuNet(find_yunet())
    if name == "mtcnn":
        return _mtcnn(find_weights(mtcnn_weights))
    weights = find_weights(mtcnn_weights)
    if weights is not None and find_spec("torch") is not None:
        return _mtcnn(weights)
    try:
        return Cascade()
    except UbhpdError:
        raise UbhpdError(
            f"No face detector is installed: {MTCNN_INSTALL} (and torch) for mtcnn, or pip install "
            "'opencv-python-headless<5' for cascade."
        ) from None


def find_yunet() -> Path:
    """Return the ONNX file of YuNet: what UBHPD_YUNET names, else the one in the cache folder.

    Raises:
        UbhpdError: it is not there.
    """
    named = os.environ.get(YUNET_VARIABLE)
    cache = user_folder("XDG_CACHE_HOME", ".cache")
    for path in filter(None, (Path(named) if named else None, cache and cache / YUNET_FILE)):
        if path.is_file():
            return path
    what = f"{YUNET_VARIABLE} names {shortened(named)}, which is no file" if named else "YuNet's file is not here"
    raise UbhpdError(
        f"{what}: get {YUNET_FILE} of the OpenCV Zoo (MIT, huggingface.co/opencv/face_detection_yunet) and name it in "
        f"{YUNET_VARIABLE}."
    )


def find_weights(place: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder, wheel or zip with the weights of MTCNN; None if none is named and none is installed.

    Args:
        place: where they are; by default what the variable UBHPD_MTCNN names, else the installed facenet-pytorch.

    Raises:
        UbhpdError: the place that was named does not exist.
    """
    named = place or os.environ.get(MTCNN_VARIABLE)
    if named:
        path = Path(named)
        if not path.exists():
            raise UbhpdError(f"There are no weights of MTCNN at {path}: name the wheel of facenet-pytorch or a folder.")
        return path
    spec = find_spec("facenet_pytorch")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        if (Path(folder) / "data" / "pnet.pt").is_file():
            return Path(folder) / "data"
    return None


def read_weights(place: Path) -> dict[str, bytes]:
    """Return the content of pnet.pt, rnet.pt and onet.pt by the network's name.

    Args:
        place: a folder that holds them, or holds them in `data` or `facenet_pytorch/data`; or a wheel or zip in which
            they lie anywhere.

    Raises:
        UbhpdError: they are not there, or cannot be read.
    """
    try:
        return _from_folder(place) if place.is_dir() else _from_zip(place)
    except (OSError, zipfile.BadZipFile) as error:
        raise UbhpdError(f"{place} is no folder or wheel with MTCNN's weights ({error}): {MTCNN_INSTALL}.") from None


def _from_folder(place: Path) -> dict[str, bytes]:
    for folder in (place, place / "data", place / "facenet_pytorch" / "data"):
        if all((folder / f"{name}.pt").is_file() for name in MTCNN_NETWORKS):
            return {name: (folder / f"{name}.pt").read_bytes() for name in MTCNN_NETWORKS}
    raise UbhpdError(f"{place} does not hold pnet.pt, rnet.pt and onet.pt, the weights of MTCNN: {MTCNN_INSTALL}.")


def _from_zip(place: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(place) as wheel:
        found = {}
        for name in MTCNN_NETWORKS:
            inside = [i for i in wheel.infolist() if f"/{i.filename}".endswith(f"/{name}.pt")]
            if len(inside) != 1 or inside[0].file_size > _MAX_BYTES:
                raise UbhpdError(f"{place} does not hold one {name}.pt, a weight file of MTCNN: {MTCNN_INSTALL}.")
            found[name] = wheel.read(inside[0])
    return found


class WholeImage:
    """Takes the whole image for one face: for images that are face crops already."""

    name = "none"

    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return one face, whose box is the image's border."""
        height, width = image_bgr.shape[:2]
        return [Face((0.0, 0.0, float(width), float(height)), 1.0)]


class YuNet:
    """YuNet through OpenCV's FaceDetectorYN.

    Wu, Peng, Yu: YuNet: A Tiny Millisecond-level Face Detector, Machine Intelligence Research 2023. Faces of about 10
    to 300 pixels; larger images are halved until a face of their height would fit.
    """

    name = "yunet"
    _LONGEST_PX = 640

    def __init__(self, path: Path) -> None:
        """Open the network; UbhpdError if OpenCV has no such detector or the file is none of YuNet's."""
        import cv2

        if not hasattr(cv2, "FaceDetectorYN"):
            raise UbhpdError(f"OpenCV {cv2.__version__} has no FaceDetectorYN: install OpenCV 4.8 or later.")
        try:
            self._network = cv2.FaceDetectorYN.create(
                str(path), "", (320, 320), _YUNET_SCORE, _YUNET_OVERLAP, _YUNET_FACES
            )
        except cv2.error:
            raise UbhpdError(f"{path} is no ONNX file of YuNet: get {YUNET_FILE} again.") from None

    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return the faces of an image (height, width, 3), BGR, the largest first."""
        import cv2

        height, width = image_bgr.shape[:2]
        scale = min(1.0, self._LONGEST_PX / max(height, width))
        size = (max(1, round(width * scale)), max(1, round(height * scale)))
        small = image_bgr if scale == 1.0 else cv2.resize(image_bgr, size, interpolation=cv2.INTER_AREA)
        self._network.setInputSize(size)
        _, rows = self._network.detect(small)
        faces = []
        for row in np.zeros((0, 15)) if rows is None else np.asarray(rows, dtype=np.float64):
            x, y, w, h = (row[:4] / scale).tolist()
            points = row[4:14].reshape(5, 2) / scale
            if w > 0 and h > 0:
                faces.append(Face((x, y, x + w, y + h), float(row[14]), points[[0, 1, 2, 3, 4]]))
        return largest_first(faces)


class Cascade:
    """OpenCV's boosted cascades for faces from the front and from both sides.

    Viola and Jones, Rapid Object Detection using a Boosted Cascade of Simple Features, CVPR 2001; the frontal cascade
    is by Lienhart, the profile cascade by Bradley. The score is the last stage's sum: no probability, and one frontal
    face hides a profile that overlaps it. It misses most faces turned far up, down or to a shoulder.
    """

    name = "cascade"

    def __init__(self) -> None:
        """Read the cascades.

        Raises:
            UbhpdError: OpenCV has no cascades, or their files are not there.
        """
        import cv2

        if not hasattr(cv2, "CascadeClassifier"):
            raise UbhpdError(
                f"OpenCV {cv2.__version__} has no cascades any more: pip install 'opencv-python-headless<5'."
            )
        data = getattr(cv2, "data", None)
        folders = ([Path(data.haarcascades)] if data is not None else []) + list(DEBIAN_FOLDERS)
        self._frontal, self._profile = _read(FRONTAL, folders), _read(PROFILE, folders)

    def boxes(self, image_bgr: Image) -> list[Face]:
        """Return the faces of an image (height, width, 3), BGR, the largest first."""
        import cv2

        grey = np.asarray(cv2.equalizeHist(cv2.cvtColor(image_bgr, cv2.COLOR_BGR2GRAY)), dtype=np.uint8)
        frontal = _search(self._frontal, grey)
        sides = _search(self._profile, grey)  # a profile that looks to image-left
        for face in _search(self._profile, np.ascontiguousarray(grey[:, ::-1])):
            left, top, right, bottom = face.bbox_xyxy
            sides.append(Face((grey.shape[1] - right, top, grey.shape[1] - left, bottom), face.score))
        found = frontal + sides
        boxes = np.array([face.bbox_xyxy for face in found]).reshape(-1, 4)
        # The two cascades' sums cannot be compared: frontal goes first, whatever its sum.
        rank = [face.score + (1e6 if i < len(frontal) else 0.0) for i, face in enumerate(found)]
        return largest_first([found[i] for i in keep_apart(boxes, rank, _OVERLAP)])


def _mtcnn(weights: Path | None) -> Detector:
    if weights is None:
        raise UbhpdError(
            f"The weights of MTCNN are not installed: {MTCNN_INSTALL}, or name its wheel in {MTCNN_VARIABLE}."
        )
    try:
        from ubhpd.images.mtcnn import Mtcnn
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise UbhpdError("The face detector mtcnn needs torch: pip install 'ubhpd[torch]'.") from None
    return Mtcnn(read_weights(weights))


def _read(name: str, folders: list[Path]) -> Any:
    import cv2

    for folder in folders:
        if (folder / name).is_file():
            cascade = cv2.CascadeClassifier(str(folder / name))
            if not cascade.empty():
                return cascade
    raise UbhpdError(
        f"The cascade {name} is not in {folders[0]}: pip install 'opencv-python-headless<5', or on Debian apt install "
        "opencv-data."
    )


def _search(cascade: Any, grey: Image) -> list[Face]:
    boxes, _, weights = cascade.detectMultiScale3(
        grey, scaleFactor=_STEP, minNeighbors=_NEIGHBOURS, minSize=(_SMALLEST_PX, _SMALLEST_PX), outputRejectLevels=True
    )
    return [
        Face((float(x), float(y), float(x + w), float(y + h)), float(weight))
        for (x, y, w, h), weight in zip(boxes, np.ravel(weights), strict=True)
    ]
