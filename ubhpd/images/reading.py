"""The images behind a build's heads: opened from the raw data where build.json says it lies."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ubhpd.core.errors import UbhpdError
from ubhpd.core.typing import Image
from ubhpd.manifest.build_folder import BuildFolder
from ubhpd.raw.image_files import VIDEO_SUFFIXES, decode
from ubhpd.raw.trees import Tree, TreeSpec, open_tree


class Images:
    """Reads images by dataset and image_path. Ask for the frames of a video in their order: it is never sought in."""

    def __init__(self, roots: Mapping[str, TreeSpec]) -> None:
        self._roots = dict(roots)
        self._trees: dict[str, Tree] = {}
        self._video: tuple[str, str, Any, int] | None = None  # dataset, path, capture, next frame

    @classmethod
    def of_build(cls, out: Path) -> Images:
        """Return the images of the build in `out`.

        Raises:
            UbhpdError: there is no readable build.json.
        """
        build = BuildFolder(out)
        return cls({n: TreeSpec(parts, str(build.spool), keep_whole=True) for n, parts in build.roots.items()})

    def data(self, dataset: str, image_path: str) -> bytes:
        """Return the bytes of an image file.

        Raises:
            UbhpdError: the dataset has moved, or the file is gone or unreadable.
        """
        _refuse_escape(image_path)
        try:
            return self._tree(dataset).read(image_path)
        except OSError as error:
            where = self._roots[dataset].where
            raise UbhpdError(f"{image_path} cannot be read in {where} ({error}): build again.") from None

    def label(self, dataset: str, path: str) -> bytes:
        """Return the bytes of a label file.

        Raises:
            FileNotFoundError: there is no such file.
            UbhpdError: the dataset has moved, or the file is unreadable.
        """
        _refuse_escape(path)
        try:
            return self._tree(dataset).read(path)
        except FileNotFoundError:
            raise
        except OSError as error:
            where = self._roots[dataset].where
            raise UbhpdError(f"{path} cannot be read in {where} ({error}): check the disk.") from None

    def image(self, dataset: str, image_path: str, frame_index: int | None = None) -> Image:
        """Return an image (height, width, 3), BGR; of a video the frame `frame_index`.

        Raises:
            UbhpdError: as `data`, or the image does not decode.
        """
        if image_path.lower().endswith(VIDEO_SUFFIXES):
            return self._frame(dataset, image_path, frame_index or 0)
        pixels = decode(self.data(dataset, image_path))
        if pixels is None:
            raise UbhpdError(f"{image_path} in {self._roots[dataset].where} does not decode: see ubhpd validate.")
        return pixels

    def of_heads(self, heads: Iterable[Mapping[str, Any]]) -> Iterator[Image | UbhpdError]:
        """Yield the image of each head, or why there is none: see `image`.

        Heads of one image that follow each other have it decoded once.

        Args:
            heads: with dataset, image_path and frame_index.
        """
        last: tuple[Any, Image | UbhpdError] | None = None
        for head in heads:
            place = (head["dataset"], head["image_path"], head["frame_index"])
            if last is None or last[0] != place:
                try:
                    last = place, self.image(*place)
                except UbhpdError as error:
                    last = place, error
            yield last[1]

    def _tree(self, dataset: str) -> Tree:
        if dataset not in self._roots:
            raise UbhpdError(f"The build has no dataset {dataset!r}: it has {', '.join(self._roots)}.")
        if dataset not in self._trees:
            self._trees[dataset] = open_tree(self._roots[dataset])
        return self._trees[dataset]

    def _frame(self, dataset: str, image_path: str, index: int) -> Image:
        import cv2

        _refuse_escape(image_path)
        tree = self._tree(dataset)
        if self._video is None or self._video[:2] != (dataset, image_path) or self._video[3] > index:
            with tree.local_path(image_path) as local:
                self._video = (dataset, image_path, cv2.VideoCapture(local), 0)
        _, _, capture, position = self._video
        while position <= index:
            is_read, pixels = capture.read() if position == index else (capture.grab(), None)
            if not is_read:
                raise UbhpdError(
                    f"{image_path} in {self._roots[dataset].where} has no frame {index}: see ubhpd validate."
                )
            position += 1
        self._video = (dataset, image_path, capture, position)
        return np.asarray(pixels, dtype=np.uint8)


def _refuse_escape(image_path: str) -> None:
    if not image_path or "\0" in image_path or image_path.startswith("/") or ".." in image_path.split("/"):
        raise UbhpdError(
            f"The image {image_path!r} lies outside its dataset: this manifest was not made by ubhpd build."
        )
