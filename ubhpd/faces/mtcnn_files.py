"""Finds the weights of MTCNN, three small files that the wheel facenet-pytorch carries, without importing it.

That package pins a torch of its own, so it is neither a dependency nor ever imported: its files are only read, out of
the installed package, out of a wheel that was downloaded, or out of a folder.
"""

from __future__ import annotations

import os
import zipfile
from importlib.util import find_spec
from pathlib import Path

from ubhpd.errors import UbhpdError

NETWORKS = ("pnet", "rnet", "onet")
VARIABLE = "UBHPD_MTCNN"
INSTALL = "pip install --no-deps facenet-pytorch==2.6.0"

_MAX_BYTES = 64 << 20  # the largest has 1.6 MB


def find_weights(place: str | os.PathLike[str] | None = None) -> Path | None:
    """Return the folder, wheel or zip with the weights of MTCNN; None if none is named and none is installed.

    Args:
        place: where they are; by default what the variable UBHPD_MTCNN names, else the installed facenet-pytorch.

    Raises:
        UbhpdError: the place that was named does not exist.
    """
    named = place or os.environ.get(VARIABLE)
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
        raise UbhpdError(f"{place} is no folder or wheel with MTCNN's weights ({error}): {INSTALL}.") from None


def _from_folder(place: Path) -> dict[str, bytes]:
    for folder in (place, place / "data", place / "facenet_pytorch" / "data"):
        if all((folder / f"{name}.pt").is_file() for name in NETWORKS):
            return {name: (folder / f"{name}.pt").read_bytes() for name in NETWORKS}
    raise UbhpdError(f"{place} does not hold pnet.pt, rnet.pt and onet.pt, the weights of MTCNN: {INSTALL}.")


def _from_zip(place: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(place) as wheel:
        found = {}
        for name in NETWORKS:
            inside = [i for i in wheel.infolist() if f"/{i.filename}".endswith(f"/{name}.pt")]
            if len(inside) != 1 or inside[0].file_size > _MAX_BYTES:
                raise UbhpdError(f"{place} does not hold one {name}.pt, a weight file of MTCNN: {INSTALL}.")
            found[name] = wheel.read(inside[0])
    return found
