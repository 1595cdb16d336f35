"""Lists of BIWI frames as they circulate: which frames a text file names, whatever else stands in it.

A frame is a recording and a frame number, as `01/frame_00003` or `hpdb/01/frame_00003_rgb.png`; what stands
before and after it on the line (a folder, a label, the name of the pose file) does not matter, nor do Windows'
separators and line ends. Empty lines, lines that begin with #, and a header without any digit are passed over.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

from ubhpd.errors import UbhpdError

_FRAME = re.compile(r"(?<![0-9A-Za-z])(\d{1,2})[/\\_]frame_(\d{1,5})(?!\d)")
_EXAMPLE = "01/frame_00003 or hpdb/01/frame_00003_rgb.png"


class FrameList(NamedTuple):
    """The frames of a list: sample_id -> number of the line that names it first, and how many were named again."""

    path: str
    lines: dict[str, int]
    repeated: int


def read_frame_list(path: str | os.PathLike[str]) -> FrameList:
    """Return the BIWI frames that a text file names, in its order.

    Raises:
        UbhpdError: no such file, not text, a line that names no frame, or no frame at all.
    """
    lines: dict[str, int] = {}
    repeated = 0
    for number, line in enumerate(_text(path).splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        # A line may name the picture and the pose file of one frame: that is one frame.
        found = dict.fromkeys(f"biwi/{int(s):02d}/frame_{int(f):05d}" for s, f in _FRAME.findall(line))
        if not found:
            if not lines and not any(c.isdigit() for c in line):
                continue
            shown = line.strip()[:60]
            raise UbhpdError(f"{path}, line {number}: {shown!r} names no BIWI frame such as {_EXAMPLE}.")
        for sample_id in found:
            repeated += sample_id in lines
            lines.setdefault(sample_id, number)
    if not lines:
        raise UbhpdError(f"{path} names no frame: give one per line, such as {_EXAMPLE}.")
    return FrameList(str(path), lines, repeated)


def _text(path: str | os.PathLike[str]) -> str:
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UbhpdError(f"Cannot open {path} ({error.strerror}): check the path of the frame list.") from None
    except UnicodeDecodeError:
        raise UbhpdError(
            f"{path} is not UTF-8 text: a frame list has one frame per line, such as {_EXAMPLE}."
        ) from None
