"""Archives for tests: the same files through every door, and packers of zip and tar."""

import io
import tarfile
import zipfile
from pathlib import Path

import numpy as np

from ubhpd.raw.trees import TreeSpec, open_tree

RNG = np.random.default_rng(0)
FILES = {
    "readme.txt": b"hello",
    "empty.txt": b"",
    "short.png": b"\x89PNG",
    "ten.txt": b"0123456789",
    "AFW/AFW_1_0.mat": RNG.bytes(3000),
    "AFW/AFW_1_0.jpg": RNG.bytes(200_000),
    "AFW/AFW_2_0.jpg": RNG.bytes(65_536 + 12),
    "AFW/AFW_3_0.jpg": RNG.bytes(65_536 + 13),
    "IBUG/IBUG_image_092 _01_0.mat": RNG.bytes(100),
    "hpdb/01/frame_00003_rgb.png": RNG.bytes(9000),
    "hpdb/01/frame_00003_depth.bin": RNG.bytes(5000),
    "hpdb/01/frame_00003_pose.txt": b"1 0 0\n",
    "big.npz": RNG.bytes(300_000),
    "Grüße/ä.txt": b"umlaut",
}
CUT = {"AFW/AFW_1_0.jpg": 65_536, "AFW/AFW_3_0.jpg": 65_536, "hpdb/01/frame_00003_rgb.png": 4096}
CUT["hpdb/01/frame_00003_depth.bin"] = 4096
FOLDERS = ["", "AFW", "IBUG", "hpdb", "hpdb/01", "Grüße"]
DOORS = ["folder", ".zip", ".tar", ".tgz", ".tar.gz", ".dot.tgz"]


def written(top):
    """Return the folder `top` with FILES as a folder and as archives; below the root and below a prefix."""
    for prefix in ("", "some data/v1"):
        folder = top / "folder" / prefix
        for name, data in FILES.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        members = {f"{prefix}/{name}".lstrip("/"): data for name, data in FILES.items()}
        stem = str(top / ("deep" if prefix else "flat"))
        write_zip(stem + ".zip", members)
        for suffix, mode in ((".tar", "w"), (".tgz", "w:gz"), (".tar.gz", "w:gz")):
            write_tar(stem + suffix, members, mode)
        write_tar(stem + ".dot.tgz", {f"./{name}": data for name, data in members.items()}, "w:gz")
    return top


def write_zip(path, members, method=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)


def write_tar(path, members, mode="w", **options):
    with tarfile.open(path, mode, **options) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def opened(path, root="", spool=None, **options):
    return open_tree(TreeSpec(((str(path), root),), str(spool) if spool else None, options.pop("keep_whole", False)))


def through(door, place, root, spool, keep_whole=True):
    stem = "deep" if root else "flat"
    path = place / "folder" if door == "folder" else place / (stem + door)
    return opened(path, root, spool, keep_whole=keep_whole)


def read_local(tree, name):
    with tree.local_path(name) as path:
        return Path(path).read_bytes()
