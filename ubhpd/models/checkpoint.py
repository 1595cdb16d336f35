"""Checkpoints: the parameters of a model in one safetensors file with a header that describes them.

The header of the file holds one metadata key, "ubhpd", with a JSON text: model, options, input recipe, origin, licence
and a hash of the tensors. The same JSON is written beside it for people to read; only the header is believed.
docs/models.md explains the format byte by byte. numpy is enough to read one.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ubhpd import __version__
from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import replacing, sha256_of, write_json
from ubhpd.core.typing import AnyArray

FORMAT = 1
KEY = "ubhpd"
SUFFIX = ".safetensors"


_FOREIGN = (b"\x89HDF\r\n\x1a\n", b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_KINDS = "biufc"  # of numpy's own types


@dataclass(frozen=True)
class About:
    """What a checkpoint says of itself.

    model: its name in the catalogue. config: every option of its Config. input: its input recipe, None for a geometric
    method. origin: "how" it was made ("untrained", "imported", "fitted", "trained") and from what. license: of the
    numbers. sha256: of the tensors. format: of the file. ubhpd: version that wrote it.
    """

    model: str
    config: Mapping[str, Any]
    input: Mapping[str, Any] | None
    origin: Mapping[str, Any]
    license: str
    sha256: str = ""
    format: int = FORMAT
    ubhpd: str = __version__


class Checkpoint(NamedTuple):
    """What a file holds: about itself, and its tensors by name."""

    about: About
    tensors: dict[str, AnyArray]


def save(path: Path, tensors: Mapping[str, AnyArray], about: About) -> About:
    """Write a checkpoint and its JSON beside it; return what it says of itself. Equal input gives equal bytes.

    Raises:
        UbhpdError: the name does not end in .safetensors, a number is not finite, or the file cannot be written.
    """
    if path.suffix != SUFFIX:
        raise UbhpdError(f"A checkpoint is a safetensors file: call it {path.stem}{SUFFIX}, not {path.name}.")
    kept = {name: np.ascontiguousarray(tensors[name]).reshape(np.shape(tensors[name])) for name in sorted(tensors)}
    check_finite(kept, str(path))
    about = replace(about, sha256=tensor_hash(kept))
    content = _safetensors().save(kept, {KEY: json.dumps(asdict(about), ensure_ascii=False, allow_nan=False)})
    try:
        with replacing(path) as part:
            part.write_bytes(content)
        write_json(asdict(about), path.with_name(f"{path.name}.json"))
    except OSError as error:
        raise UbhpdError(f"Cannot write {path} ({error.strerror}): check the path and the room on the disk.") from None
    return about


def load(path: Path, expected_model: str | None = None) -> Checkpoint:
    """Return what a checkpoint holds.

    Args:
        path: the file.
        expected_model: refuse the checkpoint of another.

    Raises:
        UbhpdError: no such file, no safetensors file, cut off, not of ubhpd, of a newer format, of another model, with
            numbers that are not finite, or changed since it was written.
    """
    about = read_about(path)
    if expected_model is not None and about.model != expected_model:
        raise UbhpdError(f"{path} is of {about.model}, not {expected_model}: give a checkpoint of {expected_model}.")
    with _opened(path) as file:
        try:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
        except (TypeError, AttributeError) as error:
            raise UbhpdError(f"{path} has tensors of a type that no checkpoint of ubhpd has ({error}).") from None
    for name, values in tensors.items():
        if values.dtype.kind not in _KINDS:  # ml_dtypes, where it is loaded, teaches numpy some more
            kind = f"{name} is of type {values.dtype}"
            raise UbhpdError(f"{path} has tensors of a type that no checkpoint of ubhpd has ({kind}).")
    check_finite(tensors, str(path))
    if tensor_hash(tensors) != about.sha256:
        raise UbhpdError(f"The tensors of {path} are not those it was written with: get or make the file again.")
    return Checkpoint(about, tensors)


def read_about(path: Path) -> About:
    """Return what the header of a checkpoint says; the tensors are not read. Errors as `load`."""
    with _opened(path) as file:
        text = (file.metadata() or {}).get(KEY)
    if text is None:
        raise UbhpdError(
            f"{path} is no checkpoint of ubhpd, only a safetensors file: bring it in by ubhpd weights import."
        )
    try:
        content = json.loads(text)
        version = content["format"]
        if isinstance(version, int) and version > FORMAT:
            raise UbhpdError(f"{path} has checkpoint format {version}, this ubhpd reads {FORMAT}: update ubhpd.")
        about = About(**content)
    except (ValueError, TypeError, KeyError, RecursionError):
        raise UbhpdError(f"The header of {path} is damaged: get or make the file again.") from None
    if not _is_sound(about):
        raise UbhpdError(f"The header of {path} is damaged: get or make the file again.")
    return about


def check_finite(tensors: Mapping[str, AnyArray], where: str) -> None:
    """Raise UbhpdError naming the first tensor with a number that is not finite; `where` is the file."""
    for name, values in tensors.items():
        if values.dtype.kind in "fc" and not np.isfinite(values).all():
            what = "all of it is" if np.isnan(values).all() else "some of it is"
            raise UbhpdError(f"{where}: {name} is not finite ({what} NaN or infinite), so these weights are of no use.")


def tensor_hash(tensors: Mapping[str, AnyArray]) -> str:
    """Return the SHA-256 over names, types, shapes and little-endian bytes of the tensors, in the order of names."""
    mark = hashlib.sha256()
    for name in sorted(tensors):
        values = tensors[name]
        mark.update(f"{name}\0{values.dtype.name}\0{list(values.shape)}\0".encode())
        mark.update(np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes())
    return mark.hexdigest()


def file_origin(path: Path) -> dict[str, str]:
    """Return the name and the SHA-256 of a file that weights come from."""
    return {"name": path.name, "sha256": sha256_of(path)}


def _is_sound(about: About) -> bool:
    kinds = {"model": str, "config": dict, "origin": dict, "license": str, "sha256": str, "format": int, "ubhpd": str}
    is_typed = all(isinstance(getattr(about, f.name), kinds[f.name]) for f in fields(about) if f.name in kinds)
    return is_typed and about.format == FORMAT and isinstance(about.input, dict | None)


def _opened(path: Path) -> Any:
    """Return the open safetensors file."""
    if not path.is_file():
        raise UbhpdError(f"There is no checkpoint {path}: see ubhpd weights --help on how to get one.")
    with path.open("rb") as file:
        start = file.read(9)
        # A safetensors file begins with the length of its header, which may be any byte, and "{".
        if start.startswith(_FOREIGN) and start[4:] != b"\0\0\0\0{":
            raise UbhpdError(
                f"{path} is a weight file of Keras or torch, no checkpoint of ubhpd: make one of it by ubhpd weights "
                "import FILE --model NAME --out NAME.safetensors."
            )
    _safetensors()
    import safetensors

    try:
        return safetensors.safe_open(path, "np")
    except (safetensors.SafetensorError, OSError) as error:
        raise UbhpdError(f"{path} is no safetensors file, or is cut off ({error}): get or make it again.") from None


def _safetensors() -> Any:
    try:
        import safetensors.numpy
    except ModuleNotFoundError:
        raise UbhpdError("Checkpoints need safetensors, which is not installed: pip install 'ubhpd[torch]'.") from None
    return safetensors.numpy
