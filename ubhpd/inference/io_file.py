"""How a model of others takes images and gives poses: the IO file, TOML, and its outputs as rotations.

    title = "FSA-Net 1x1, PyTorch port"      # optional, as are source and license
    [input]
    crop = "fsanet-0.6"                      # a crop recipe: ubhpd export --list-recipes
    size = 64                                # pixels
    colour = "BGR"                           # RGB, BGR or grey
    layout = "NCHW"                          # or NHWC
    mean = 127.5                             # a value v of 0 to 255 enters as (v - mean) / std; one number or three
    std = 128
    [[output]]                               # several: their poses are averaged
    kind = "angles"                          # angles, bins, matrix, 6d or quaternion
    names = ["output"]                       # one output of three angles, or three; default: in the file's order
    order = ["yaw", "pitch", "roll"]

docs/foreign-models.md explains every key. A file is checked as a whole; the error for an unknown key names the nearest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ubhpd.core import options
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_toml
from ubhpd.core.registry import suggestion
from ubhpd.core.rotation import Convention, canonical_from_angles, euler_from_matrix, matrix_from_quaternion
from ubhpd.core.typing import AnyArray, FloatArray
from ubhpd.images.crops import recipe_named

Angle = Literal["yaw", "pitch", "roll"]
_AXES = {f"{sign}{name}": value * np.eye(3)[k] for k, name in enumerate("xyz") for sign, value in (("", 1), ("-", -1))}
_CAMERA = ("x", "-y", "-z")
_SIZE_LIMITS = (8, 1024)  # pixels


@dataclass(frozen=True)
class InputFile:
    """The table `input`: how a face is cut out and becomes numbers.

    crop: a crop recipe. size: side in pixels. colour: order of the channels; "grey" is 0.299 R + 0.587 G + 0.114 B.
    layout: "NCHW" or "NHWC". mean, std: a value v of 0 to 255 enters as (v - mean) / std, one number or one per
    channel. name: of the input, where the file has several.
    """

    crop: str = "square"
    size: int = 224
    colour: Literal["RGB", "BGR", "grey"] = "RGB"
    layout: Literal["NCHW", "NHWC"] = "NCHW"
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    name: str | None = None


@dataclass(frozen=True)
class OutputFile:
    """One table `output`: what a model gives, and what it means.

    kind: "angles", "bins" (class scores per angle), "matrix" (3 x 3, 3 x 4 or 4 x 4), "6d" (two axes of the matrix) or
    "quaternion". names: one output, or for angles and bins three in `order`. order, signs, unit, axes: of angles and
    bins, read as R = product of the elementary rotations named in `axes`, left to right, X by -pitch, Y by -yaw and Z
    by -roll, each times its sign; the defaults are the project's own angles (docs/conventions.md). first, width,
    softmax: of bins; class i stands for first + i * width degrees (`first` may differ by angle), weighted by the
    softmax of the scores or by the scores themselves. vectors: of 6d, "columns" or "rows" of the matrix. scalar: of a
    quaternion, "first" or "last". transposed: the rotation is the inverse. frame: "C" (x right, y up, z to the viewer),
    "camera" (y down, z away), or three signed axes such as ["x", "-y", "-z"], by which both sides of the matrix are
    multiplied. head: the same for the right side alone, the head's own axes.
    """

    kind: Literal["angles", "bins", "matrix", "6d", "quaternion"] = "angles"
    names: tuple[str, ...] = ()
    order: tuple[Angle, Angle, Angle] = ("yaw", "pitch", "roll")
    signs: tuple[float, float, float] = (1.0, 1.0, 1.0)
    unit: Literal["degrees", "radians"] = "degrees"
    axes: str = "XYZ"
    first: tuple[float, ...] = (-99.0,)
    width: float = 3.0
    softmax: bool = True
    vectors: Literal["columns", "rows"] = "columns"
    scalar: Literal["first", "last"] = "last"
    transposed: bool = False
    frame: Literal["C", "camera"] | tuple[str, str, str] = "C"
    head: Literal["C", "camera"] | tuple[str, str, str] | None = None

    def poses(self, arrays: Sequence[AnyArray], where: str) -> tuple[FloatArray, FloatArray]:
        """Return canonical angles (n, 3) in degrees and rotations (n, 3, 3) of this table's outputs.

        Args:
            arrays: the outputs in the order of `names`, n heads each.
            where: names the model in errors.

        Raises:
            UbhpdError: another number of outputs or another shape.
        """
        values = [np.asarray(a, dtype=np.float64) for a in arrays]
        n = len(values[0]) if values else 0
        if self.kind in ("angles", "bins"):
            degrees = self._degrees(values, where)
            angles, rotation = canonical_from_angles(degrees, self._convention())
        else:
            angles, rotation = None, self._rotation(_flat(values, _WIDTHS[self.kind], where), n)
        rotation = np.swapaxes(rotation, -1, -2) if self.transposed else rotation
        left, right = _axes(self.frame), _axes(self.frame if self.head is None else self.head)
        if angles is not None and not self.transposed and (left == np.eye(3)).all() and (right == np.eye(3)).all():
            return angles, rotation
        rotation = left @ rotation @ right.T
        return euler_from_matrix(rotation), rotation

    def _degrees(self, values: list[FloatArray], where: str) -> FloatArray:
        """Return the three angles (n, 3) in `order`, in degrees, times `signs`."""
        if self.kind == "bins":
            if len(values) != 3 or any(v.ndim != 2 for v in values):
                raise UbhpdError(
                    f"{where} gives {_shapes(values)} for bins: three outputs of shape (n, bins) are needed."
                )
            first = np.broadcast_to(self.first, 3)
            result = np.stack([self._expected(v, f) for v, f in zip(values, first, strict=True)], axis=1)
        else:
            result = _flat(values, (3,), where)
        if self.unit == "radians":
            result = np.degrees(result)
        degrees: FloatArray = result * np.asarray(self.signs)
        return degrees

    def _expected(self, scores: FloatArray, first: float) -> FloatArray:
        """Return the mean (n,) of the classes of one angle under their scores (n, bins)."""
        if self.softmax:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        with np.errstate(invalid="ignore", divide="ignore"):
            mean: FloatArray = scores @ (first + self.width * np.arange(scores.shape[1])) / scores.sum(axis=1)
        return mean

    def _convention(self) -> Convention:
        return Convention("IO file", self.order, "deg", self.axes, -1, -1, -1)

    def _rotation(self, values: FloatArray, n: int) -> FloatArray:
        if self.kind == "quaternion":
            scalar_last = values if self.scalar == "last" else np.roll(values, -1, axis=1)
            usable = np.isfinite(values).all(axis=1) & (np.abs(values) > 0).any(axis=1)
            rotation = np.full((n, 3, 3), np.nan)
            rotation[usable] = matrix_from_quaternion(scalar_last[usable])
            return rotation
        if self.kind == "6d":
            first, second = values[:, :3], values[:, 3:]
            first = first / np.linalg.norm(first, axis=1, keepdims=True)
            third = np.cross(first, second)
            third = third / np.linalg.norm(third, axis=1, keepdims=True)
            rotation = np.stack([first, np.cross(third, first), third], axis=2)
            return rotation if self.vectors == "columns" else np.swapaxes(rotation, -1, -2)
        columns = {9: 3, 12: 4, 16: 4}[values.shape[1]]
        return nearest_rotation(values.reshape(n, -1, columns)[:, :3, :3])


_WIDTHS = {"matrix": (9, 12, 16), "6d": (6,), "quaternion": (4,)}


@dataclass(frozen=True)
class IoFile:
    """A whole IO file; `output` has one table, or several whose poses are averaged."""

    input: InputFile = field(default_factory=InputFile)
    output: tuple[OutputFile, ...] = (OutputFile(),)
    title: str = ""
    source: str = ""
    license: str = ""


def read(place: str | Path) -> IoFile:
    """Return an IO file, by its path or by the name of one that the package brings; see `shipped`.

    Raises:
        UbhpdError: neither a file nor a name, no TOML, an unknown key, or a value that is not allowed.
    """
    path = Path(place)
    name = str(place)
    known = shipped()
    if not path.is_file():
        if name.lower() not in known:
            raise UbhpdError(
                f"There is no IO file {name!r}, neither on the disk nor in the package: {suggestion(name, known)}"
            )
        path = known[name.lower()]
    content = read_toml(path, "correct the IO file")
    return checked(content, f"The IO file {name}")


def checked(content: Mapping[str, Any], where: str) -> IoFile:
    """Return the parsed content of an IO file.

    Raises:
        UbhpdError: an unknown key, or a value that is not allowed; `where` begins the sentence.
    """
    tables = dict(content)
    inputs, outputs = tables.pop("input", {}), tables.pop("output", [{}])
    outputs = [outputs] if isinstance(outputs, dict) else outputs
    if not isinstance(inputs, dict) or not isinstance(outputs, list) or not outputs:
        raise UbhpdError(f"{where} needs one table [input] and at least one [[output]]: correct it.")
    if not all(isinstance(o, dict) for o in outputs):
        raise UbhpdError(f"{where} has an output that is no table: begin it with [[output]].")
    inputs = _as_lists(inputs, "mean", "std")
    parsed = options.from_values(InputFile, inputs, f"{where}: input")
    read_outputs = tuple(options.from_values(OutputFile, _as_lists(o, "first"), f"{where}: output") for o in outputs)
    io = options.from_values(IoFile, tables, where) if tables else IoFile()
    _check_input(parsed, where)
    for output in read_outputs:
        _check_output(output, where)
    return IoFile(parsed, read_outputs, io.title, io.source, io.license)


def as_toml(io: IoFile) -> str:
    """Return an IO file as text: everything of the input, and of the outputs what is not the default."""
    lines = [f"{k} = {_value(getattr(io, k))}" for k in ("title", "source", "license") if getattr(io, k)]
    lines += ["", "[input]", *(f"{k} = {_value(v)}" for k, v in vars(io.input).items() if v is not None)]
    for own in io.output:
        given = {k: v for k, v in vars(own).items() if k == "kind" or v != getattr(OutputFile(), k)}
        lines += ["", "[[output]]", *(f"{k} = {_value(v)}" for k, v in given.items())]
    return "\n".join(lines).strip() + "\n"


def _value(value: Any) -> str:
    """Return a value as TOML, whose texts, numbers, lists and truth values are those of JSON."""
    if isinstance(value, tuple):
        return json.dumps(value[0] if len(value) == 1 and isinstance(value[0], float) else list(value))
    return json.dumps(value)


def _as_lists(table: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """Return a table in which one number stands for a list of one."""
    return {k: [v] if k in names and isinstance(v, (int, float)) else v for k, v in table.items()}


def shipped() -> dict[str, Path]:
    """Return the IO files that come with the package, by name."""
    folder = Path(str(resources.files("ubhpd") / "data" / "io"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


def averaged(poses: Sequence[tuple[FloatArray, FloatArray]]) -> tuple[FloatArray, FloatArray]:
    """Return the average of several models' poses: the mean of the angles, and the rotation nearest to the mean matrix.

    Where each model gives angles of its own, published ensembles average the angles; so does this.
    """
    if len(poses) == 1:
        return poses[0]
    angles = np.mean([p[0] for p in poses], axis=0)
    return angles, nearest_rotation(np.mean([p[1] for p in poses], axis=0))


def nearest_rotation(matrix: FloatArray) -> FloatArray:
    """Return the rotation nearest to each matrix (n, 3, 3) in the Frobenius norm; NaN where it is not finite."""
    rotation = np.full(matrix.shape, np.nan)
    finite = np.isfinite(matrix).all(axis=(1, 2))
    if finite.any():
        u, _, vt = np.linalg.svd(matrix[finite])
        flip = np.ones((len(u), 3, 1))
        flip[:, 2, 0] = np.sign(np.linalg.det(u @ vt))
        rotation[finite] = u @ (flip * vt)
    return rotation


def _check_input(own: InputFile, where: str) -> None:
    recipe_named(own.crop)
    low, high = _SIZE_LIMITS
    if not low <= own.size <= high:
        raise UbhpdError(f"{where}: input.size is {own.size}: give the side of the input in pixels, {low} to {high}.")
    channels = 1 if own.colour == "grey" else 3
    for name in ("mean", "std"):
        values = getattr(own, name)
        if len(values) not in (1, channels):
            raise UbhpdError(f"{where}: input.{name} has {len(values)} numbers: give one, or {channels}.")
    if not all(own.std):
        raise UbhpdError(f"{where}: input.std is 0: give what the values are divided by.")


def _check_output(own: OutputFile, where: str) -> None:
    if sorted(own.order) != ["pitch", "roll", "yaw"]:
        raise UbhpdError(f"{where}: output.order is {', '.join(own.order)}: name yaw, pitch and roll once each.")
    if sorted(own.axes) != ["X", "Y", "Z"]:
        raise UbhpdError(f"{where}: output.axes is {own.axes!r}: give X, Y and Z in their order, as XYZ.")
    if any(abs(s) != 1 for s in own.signs):
        raise UbhpdError(f"{where}: output.signs is {own.signs}: give 1 or -1 for each angle.")
    if len(own.names) not in ((0, 1, 3) if own.kind in ("angles", "bins") else (0, 1)):
        raise UbhpdError(
            f"{where}: output.names has {len(own.names)} names: {own.kind} takes one, and angles or bins three."
        )
    if len(own.first) not in (1, 3):
        raise UbhpdError(f"{where}: output.first has {len(own.first)} numbers: give one, or one per angle.")
    if own.width == 0:
        raise UbhpdError(f"{where}: output.width is 0: give the degrees between two classes.")
    for name in ("frame", "head"):
        _axes(getattr(own, name) or "C", f"{where}: output.{name}")


def _axes(frame: str | tuple[str, ...], where: str = "") -> FloatArray:
    """Return the signed permutation (3, 3) whose rows are the named axes."""
    if frame == "C":
        return np.eye(3)
    names = _CAMERA if frame == "camera" else frame
    if any(n not in _AXES for n in names):
        raise UbhpdError(f"{where} is {', '.join(names)}: give three of x, y, z, each with a minus or without.")
    matrix = np.stack([_AXES[n] for n in names])
    if round(float(np.linalg.det(matrix))) != 1:
        raise UbhpdError(f"{where} is {', '.join(names)}, which is no rotation: exchange two axes or change a sign.")
    return matrix


def _flat(values: list[FloatArray], widths: tuple[int, ...], where: str) -> FloatArray:
    """Return one array (n, width) of a single output, or of `width` outputs with a number each."""
    if len(values) == 1:
        flat = values[0].reshape(len(values[0]), -1)
    elif values and all(v.size == len(v) for v in values):
        flat = np.stack([v.reshape(-1) for v in values], axis=1)
    else:
        flat = np.empty((0, 0))
    if flat.shape[1] not in widths:
        numbers = " or ".join(map(str, widths))
        raise UbhpdError(f"{where} gives {_shapes(values)}: {numbers} numbers for each head are needed.")
    return flat


def _shapes(values: list[FloatArray]) -> str:
    return " and ".join(str(v.shape) for v in values) or "no output"
