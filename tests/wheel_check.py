"""Checks a built wheel: one global name, every file of code, template and style sheet in it.

python tests/wheel_check.py dist
"""

from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
ROOMS = ("builders", "metrics", "baselines")


def code_files() -> set[str]:
    """Return every Python file of the repository under the name it has in the wheel."""
    own = {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "ubhpd").rglob("*.py")}
    rooms = {f"ubhpd/{p.relative_to(REPOSITORY).as_posix()}" for r in ROOMS for p in (REPOSITORY / r).rglob("*.py")}
    return own | rooms


def data_files() -> set[str]:
    """Return every template, style sheet, script and table of the package under the name it has in the wheel."""
    kinds = (".csv", ".css", ".html", ".jinja", ".js")
    return {p.relative_to(REPOSITORY).as_posix() for p in (REPOSITORY / "ubhpd").rglob("*") if p.suffix in kinds}


def faults(wheel: Path) -> list[str]:
    """Return what is wrong with a wheel."""
    source = (REPOSITORY / "ubhpd" / "__init__.py").read_text(encoding="utf-8")
    version = re.search(r'^__version__ = "([^"]+)"$', source, re.MULTILINE)
    with zipfile.ZipFile(wheel) as archive:
        names = {n for n in archive.namelist() if ".dist-info/" not in n}
    found = [f"{name} lies outside ubhpd/" for name in sorted(names) if not name.startswith("ubhpd/")]
    found += [
        f"{name} is not in the wheel: list its folder in pyproject.toml"
        for name in sorted((code_files() | data_files()) - names)
    ]
    if version is None or not wheel.name.startswith(f"ubhpd-{version[1]}-"):
        found.append(f"{wheel.name} does not have the version of ubhpd/__init__.py in its name")
    if "ubhpd/py.typed" not in names:
        found.append("ubhpd/py.typed is not in the wheel")
    return found


def main() -> None:
    """Check the wheel in the folder named on the command line."""
    wheels = sorted(Path(sys.argv[1]).glob("*.whl"))
    if len(wheels) != 1:
        sys.exit(f"{sys.argv[1]} holds {len(wheels)} wheels, expected one")
    found = faults(wheels[0])
    print("\n".join(found) or f"{wheels[0].name}: all code and data are in it, and nothing else")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
