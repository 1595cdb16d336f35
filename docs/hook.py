"""What the site has besides the pages of docs/: README.md as its start, two more pages, and the notebooks as stored.

Links are written for readers of the repository and turned here to where the site has the page. MkDocs calls the
functions that begin with on_, see mkdocs.yml.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

from execute import Shown, stored  # noqa: E402


def on_config(config: Any, **_: Any) -> Any:
    """Put the pages of docs/metrics into the navigation, where mkdocs.yml names the folder."""
    pages = [f"metrics/{path.name}" for path in sorted((ROOT / "docs" / "metrics").glob("*.md"))]
    for section in config.nav:
        for entries in section.values():
            for entry in entries:
                if entry.get("Metrics") == "metrics/":
                    entry["Metrics"] = pages
    return config


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Return the files of docs/ with those that are made here."""
    for source, page in (("README.md", "index.md"), ("CONTRIBUTING.md",) * 2, ("CHANGELOG.md",) * 2):
        text = (ROOT / source).read_text(encoding="utf-8")
        text = text.replace("](docs/", "](").replace("](notebooks/README.md)", "](notebooks/1-bias-and-ubhpd.md)")
        files.append(File.generated(config, page, content=text))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in _pages(path).items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return a page with links to a folder led to a page of it, and of links that leave docs/ only what they say."""
    docs = ROOT / "docs"
    place = (docs / page.file.src_uri).parent

    def turned(link: re.Match[str]) -> str:
        inside = (place / link[2]).resolve().is_relative_to(docs)
        return link[0] if inside else link[1]

    return re.sub(r"\[([^\]]+)\]\((\.\./[^)#]+)[^)]*\)", turned, markdown.replace("](metrics/)", "](metrics/mae.md)"))


def _pages(path: Path) -> dict[str, str | bytes]:
    """Return the page of a notebook and its images by file name."""
    lines, found = [], dict[str, str | bytes]()
    for number, (cell, shown) in enumerate(stored(path), start=1):
        code = re.sub(r"^%.*\n", "", cell.text, flags=re.MULTILINE)
        lines.append(f"```python\n{code}\n```" if cell.kind == "code" else cell.text.replace("](../docs/", "](../"))
        for place, own in enumerate(shown):
            image = f"{path.stem}-{number:02d}-{place}.png"
            lines.append(_markdown(own, image))
            if isinstance(own.content, bytes):
                found[image] = own.content
    return {f"{path.stem}.md": "\n\n".join(lines) + "\n", **found}


def _markdown(shown: Shown, image: str) -> str:
    if isinstance(shown.content, bytes):
        return f"![What the cell shows]({image})"
    if shown.kind == "html":
        return shown.content
    return f"```text\n{shown.content.rstrip()}\n```"
