"""Images without a manifest as batches: a folder, a video or a camera, the faces in them found by a detector.

Predicted poses drawn on the images: axes and a cube on every head.
"""

from __future__ import annotations

import csv
import hashlib
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import cv2
import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing
from ubhpd.core.rotation import euler_from_matrix, matrix_from_euler
from ubhpd.core.typing import AnyArray, FloatArray, Image
from ubhpd.images.crops import crop, crop_box, placed, recipe_named
from ubhpd.images.drawing import draw_axes, draw_cube, draw_label, draw_text
from ubhpd.images.faces import Detector, Face, Images, InputImage, frame_rate, text_name, video
from ubhpd.inference.prediction_file import ANGLES, BATCH_HEADS, MATRIX, Batch, Draw, Drawable, in_order, stacked
from ubhpd.nn.inputs import Heads

if TYPE_CHECKING:
    from ubhpd.nn.contract import InputRecipe

Sees = Literal["crops", "landmarks", "table"]
_FIT = re.compile(r"[^.\x00-\x1f\x7f\\][^\x00-\x1f\x7f\\]*")  # neither hidden nor another folder
_LONGEST_NAME = 200  # bytes; file systems allow 255

Landmarks = Callable[[Image, tuple[float, float, float, float]], FloatArray]


class ImageSource:
    """The faces in images that come one by one.

    A head is called after its image; the second face of an image has "#2" behind it, a frame of a video or a camera
    its number. A network that sees sequences gets the last frames up to an image, of a folder in the order of names;
    it is meant for videos, with one face.
    """

    extra_columns: tuple[str, ...] = ("image_path", "frame_index", "x0", "y0", "x1", "y1", "score")

    def __init__(self, images: Images, where: str, detector: Detector,
                 recipe: InputRecipe | None, sees: Sees, *, all_faces: bool = False, live: bool = False,
                 landmarks: Landmarks | None = None) -> None:  # fmt: skip
        """Prepare to read.

        Args:
            images: in order.
            where: they come from, for the record.
            detector: finds the faces.
            recipe: of the model, None for a geometric method.
            sees: what the model is fed with.
            all_faces: predict every face of an image, not only the largest.
            live: the images come from a camera: each is predicted at once, not when a batch is full.
            landmarks: gives the 68 points of a face, for a model that sees landmarks.
        """
        if sees != "crops" and landmarks is None:
            raise UbhpdError("This model judges 68 landmarks, and images have none: give --landmarks dlib.")
        self._images, self._detector = images, detector
        self.passed_over = images.passed_over
        self._recipe, self._sees, self._all, self._landmarks = recipe, sees, all_faces, landmarks
        self._live, self._batch_heads = live, 1 if live else BATCH_HEADS
        self.identity: dict[str, Any] = {"images": where, "detector": detector.name, "all_faces": all_faces}
        self._last: list[Image] = []

    def total(self) -> int:
        """Return the number of images to come, 0 if that is not known."""
        return self._images.total

    def batches(self, done: Collection[str], draws: bool) -> Iterator[Batch]:
        """Yield the faces of all images but those done; `draws`: with their images."""
        waiting: list[Batch] = []
        left = (p for p in self._images if self._recipe_frames() > 1 or _name(p) not in done)

        def faces(image: InputImage) -> Batch:
            return self._image(image, draws)

        # One thread: a cascade is not thread-safe, and a live source must not be read ahead.
        for batch in map(faces, left) if self._live else in_order(faces, left, 1):
            waiting.append(self._in_sequence(batch))
            if sum(len(b.sample_id) + len(b.problems) for b in waiting) >= self._batch_heads:
                yield self._joined(waiting, done)
                waiting = []
        if waiting:
            yield self._joined(waiting, done)

    def _recipe_frames(self) -> int:
        return self._recipe.frames if self._recipe else 1

    def _image(self, image: InputImage, draws: bool) -> Batch:
        """Return the faces of one image."""
        name, pixels = _name(image), image.pixels_bgr
        if pixels is None:
            return self._batch([], [], [], [(name, image.problem or "it does not decode")], [])
        faces = self._detector.boxes(pixels)[: None if self._all else 1]
        ids, inputs, extra, drawables = [], [], [], []
        problems = [] if faces else [(name, f"the detector {self._detector.name} finds no face")]
        for number, face in enumerate(faces, start=1):
            sample_id = name if number == 1 else f"{name}#{number}"
            found = self._seen(pixels, face)
            if found is None:
                problems.append((sample_id, "the face box lies outside the image"))
                continue
            ids.append(sample_id)
            inputs.append(found)
            frame = "" if image.frame_index is None else image.frame_index
            extra.append((image.name, frame, *(f"{v:.1f}" for v in face.bbox_xyxy), f"{face.score:.4f}"))
            if draws:
                drawables.append(Drawable(pixels, face.bbox_xyxy))
        return self._batch(ids, inputs, extra, problems, drawables)

    def _seen(self, pixels: Image, face: Face) -> Any:
        """Return what the model sees of a face, None if its crop is empty."""
        points = self._landmarks(pixels, face.bbox_xyxy) if self._landmarks else None
        size = (pixels.shape[1], pixels.shape[0])
        if self._recipe is None:
            return points, size
        return seen_of_face(pixels, face.bbox_xyxy, self._recipe, points)

    def _batch(self, ids: list[str], inputs: list[Any], extra: list[tuple[Any, ...]],
               problems: list[tuple[str, str]], drawables: list[Drawable]) -> Batch:  # fmt: skip
        return Batch(ids, self._together(ids, inputs), extra, problems, drawables)

    def _together(self, ids: list[str], inputs: list[Any]) -> AnyArray | Heads:
        if self._recipe is None:
            points = np.array([p for p, _ in inputs], dtype=np.float64).reshape(-1, 68, 2)
            sizes = np.array([s for _, s in inputs], dtype=np.float64).reshape(-1, 2)
            return Heads(ids, None, None, points, sizes)
        if self._sees == "landmarks":
            return np.array(inputs, dtype=np.float64).reshape(-1, 68, 2)
        return stacked(inputs, (self._recipe.size, self._recipe.size, 3))

    def _in_sequence(self, batch: Batch) -> Batch:
        """Return the batch with every crop as the last of a sequence, for a model that sees sequences."""
        frames = self._recipe_frames()
        if frames == 1 or not isinstance(batch.inputs, np.ndarray) or self._recipe is None:
            return batch
        windows = []
        for face in batch.inputs:
            self._last = [*(self._last or [face] * frames), face][-frames:]
            windows.append(np.stack(self._last))
        shape = (frames, self._recipe.size, self._recipe.size, 3)
        return batch._replace(inputs=stacked(windows, shape))

    def _joined(self, batches: list[Batch], done: Collection[str]) -> Batch:
        """Return several batches as one, without the heads that are done."""
        ids = [i for b in batches for i in b.sample_id]
        keep = [at for at, sample_id in enumerate(ids) if sample_id not in done]
        inputs = _concatenated([b.inputs for b in batches], keep)
        extra = [e for b in batches for e in b.extra]
        drawables = [d for b in batches for d in b.drawables]
        return Batch(
            [ids[at] for at in keep],
            inputs,
            [extra[at] for at in keep],
            [p for b in batches for p in b.problems if p[0] not in done],
            [drawables[at] for at in keep] if drawables else [],
        )


def seen_of_face(pixels: Image, bbox_xyxy: tuple[float, float, float, float], recipe: InputRecipe,
                 points: FloatArray | None = None) -> Any:  # fmt: skip
    """Return what a network sees of a face that was found in an image, None if its crop is empty.

    Args:
        pixels: the image (height, width, 3), BGR.
        bbox_xyxy: of the face, in pixels.
        recipe: of the network.
        points: landmarks (68, 2) in pixels, for a network that sees them: it gets them in the crop, -0.5 to 0.5.
            Without them it gets the crop itself, uint8 (size, size, 3) in the recipe's colours.
    """
    height, width = pixels.shape[:2]
    flat = None if points is None else points.ravel()
    fields = {"image_width": width, "image_height": height, "bbox_xyxy": bbox_xyxy, "landmarks68": flat}
    how = recipe_named(recipe.crop)
    box = crop_box(fields, how)
    if box is None:
        return None
    if points is not None:
        return placed(points, box, how, recipe.size) / recipe.size - 0.5
    return crop(pixels, box, how, recipe.size, recipe.colour)


def _concatenated(inputs: list[AnyArray | Heads], keep: list[int]) -> AnyArray | Heads:
    heads = [part for part in inputs if isinstance(part, Heads)]
    if not heads:
        return np.concatenate([part for part in inputs if isinstance(part, np.ndarray)])[keep]
    ids = [i for h in heads for i in h.sample_id]
    points = np.concatenate([h.landmarks68 for h in heads])
    sizes = np.concatenate([h.image_size for h in heads])
    return Heads([ids[at] for at in keep], None, None, points[keep], sizes[keep])


def _name(image: InputImage) -> str:
    return image.name if image.frame_index is None else f"{image.name}:{image.frame_index}"


def drawer(folder: Path, truth: Mapping[str, FloatArray] | None = None) -> Draw:
    """Return a function that writes a head's image with its pose to `folder`, named after the head.

    The folders in a name are kept: "a/b.jpg" becomes a/b.jpg.jpg.

    Args:
        folder: where to write.
        truth: sample_id -> true rotation (3, 3); then the ground truth is drawn on a second image to the right of the
            prediction, where it is known.
    """

    def draw(sample_id: str, drawable: Drawable, rotation: FloatArray) -> None:
        image = drawable.image.copy()
        _draw_pose(image, drawable.box_xyxy, rotation)
        true = None if truth is None else truth.get(sample_id)
        if truth is not None:
            beside = drawable.image.copy()
            if true is not None and np.isfinite(true).all():
                _draw_pose(beside, drawable.box_xyxy, true)
            for part, word in ((image, "predicted"), (beside, "ground truth" if true is not None else "unknown")):
                draw_text(part, word, (0, part.shape[0]))
            image = np.hstack([image, beside])
        is_written, data = cv2.imencode(".jpg", image)
        if not is_written:
            raise UbhpdError(f"The image of {sample_id} cannot be encoded: leave --draw out.")
        with replacing(folder / f"{_file_of(sample_id)}.jpg") as part:
            part.write_bytes(data.tobytes())

    return draw


GRID = "grid.jpg"
_CELL_PX = 240  # height of a drawing in a grid


def draw_grid(folder: Path, predictions: Path, heads: int) -> Path:
    """Write one image of several drawings of `drawer`, in rows, and return its path: `folder`/grid.jpg.

    Args:
        folder: with the drawings.
        predictions: the prediction file of them.
        heads: how many to take, at equal distances in the file.

    Raises:
        UbhpdError: not one drawing is there.
    """
    with predictions.open(encoding="utf-8", newline="") as file:
        ids = [row["sample_id"].removeprefix("./") for row in csv.DictReader(file)]
    at: list[int] = (
        np.unique(np.linspace(0, len(ids) - 1, min(heads, len(ids))).round().astype(int)).tolist() if ids else []
    )
    cells = []
    for path in (folder / f"{_file_of(ids[i])}.jpg" for i in at):
        image = cv2.imread(str(path)) if path.is_file() else None
        if image is not None:
            width = max(1, round(image.shape[1] * _CELL_PX / image.shape[0]))
            cells.append(cv2.resize(image, (width, _CELL_PX), interpolation=cv2.INTER_AREA))
    if not cells:
        raise UbhpdError(f"{folder} has no drawing of {predictions}, so there is no grid: give an empty folder.")
    columns = max(1, round(sqrt(len(cells) * _CELL_PX / max(c.shape[1] for c in cells))))
    wide = max(c.shape[1] for c in cells)
    canvas = np.full((-(-len(cells) // columns) * _CELL_PX, columns * wide, 3), 255, dtype=np.uint8)
    for number, cell in enumerate(cells):
        top, left = number // columns * _CELL_PX, number % columns * wide
        canvas[top : top + _CELL_PX, left : left + cell.shape[1]] = cell
    with replacing(folder / GRID) as part:
        part.write_bytes(cv2.imencode(".jpg", canvas)[1].tobytes())
    return folder / GRID


def draw_video(place: Path, predictions: Path, folder: Path) -> Path:
    """Write a video with the predicted poses drawn on its frames, and return its path: `folder`/NAME.mp4.

    Args:
        place: the video that was predicted.
        predictions: the prediction file of it.
        folder: where the new video goes; made if it is not there.

    Raises:
        UbhpdError: this OpenCV cannot write a video, or the video cannot be read any more.
    """
    with predictions.open(encoding="utf-8", newline="") as file:
        heads: dict[int, list[tuple[tuple[float, float, float, float], FloatArray]]] = {}
        for row in csv.DictReader(file):
            box = (float(row["x0"]), float(row["y0"]), float(row["x1"]), float(row["y1"]))
            heads.setdefault(int(row["frame_index"]), []).append((box, _rotation(row)))
    out = folder / f"{_file_of(text_name(place.name))}.mp4"
    writer: Any = None
    with replacing(out) as part:
        # OpenCV takes the container from the suffix.
        plain = part.with_name(f"{part.name}.mp4")
        try:
            for image in video(place):
                if image.pixels_bgr is None:
                    continue
                if writer is None:
                    height, width = image.pixels_bgr.shape[:2]
                    writer = cv2.VideoWriter(
                        str(plain.absolute()), cv2.VideoWriter.fourcc(*"mp4v"), frame_rate(place), (width, height)
                    )
                    if not writer.isOpened():
                        raise UbhpdError(
                            f"OpenCV cannot write the video {out}: check that the folder can be written and that this "
                            "OpenCV has FFmpeg, or leave --draw out; the predictions are written."
                        )
                frame = image.pixels_bgr.copy()
                for box, rotation in heads.get(image.frame_index or 0, []):
                    _draw_pose(frame, box, rotation)
                writer.write(frame)
            if writer is None:
                raise UbhpdError(f"{place} has no frame to draw on: leave --draw out.")
            writer.release()
            plain.replace(part)
        finally:
            if writer is not None:
                writer.release()
            plain.unlink(missing_ok=True)
    return out


def _draw_pose(image: Image, box_xyxy: tuple[float, float, float, float], rotation: FloatArray) -> None:
    x0, y0, x1, y1 = box_xyxy
    middle, size = ((x0 + x1) / 2, (y0 + y1) / 2), max(x1 - x0, y1 - y0) / 2
    draw_cube(image, rotation, middle, size)
    draw_axes(image, rotation, middle, size)
    draw_label(image, euler_from_matrix(rotation), (x0, y0))


def _rotation(row: dict[str, str]) -> FloatArray:
    if "yaw" in row:
        return matrix_from_euler([float(row[name]) for name in ANGLES])
    return np.array([float(row[name]) for name in MATRIX]).reshape(3, 3)


def _file_of(sample_id: str) -> str:
    """Return the path of a head's drawing below its folder, without a suffix; no two heads have the same.

    A name that is not fit for a path gets the beginning of its SHA-256 behind it.
    """
    parts = sample_id.split("/")
    with suppress(UnicodeEncodeError):  # a file system of the C locale takes ASCII alone
        os.fsencode(sample_id)
        if all(_FIT.fullmatch(part) and len(part.encode()) <= _LONGEST_NAME for part in parts):
            return sample_id
    plain = re.sub(r"[^A-Za-z0-9_.#=@+ -]", "_", sample_id).lstrip(".")[:60]
    return f"{plain}-{hashlib.sha256(sample_id.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"
