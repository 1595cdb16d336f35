"""Names the machine a benchmark ran on, and shows what it found."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable
from importlib.metadata import version
from pathlib import Path


def describe_machine(*packages: str) -> str:
    """Return one line: processor, usable cores, Python, and the versions of numpy and the named packages."""
    info = Path("/proc/cpuinfo")
    names = (
        [s.partition(":")[2].strip() for s in info.read_text().splitlines() if s.startswith("model name")]
        if info.exists()
        else []
    )
    processor = names[0] if names else platform.processor() or platform.machine()
    versions = ", ".join(f"{name} {version(name)}" for name in ("numpy", *packages))
    return f"{processor}, {len(os.sched_getaffinity(0))} cores; Python {platform.python_version()}, {versions}."


def show(title: str, lines: Iterable[str], out: Path | None) -> None:
    """Print the lines, and write them below the title to the Markdown file `out`, if there is to be one."""
    text = "\n".join(lines)
    print(text)
    if out:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(f"# {title}\n\n{text}\n", encoding="utf-8")
