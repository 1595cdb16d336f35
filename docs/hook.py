"""What the site has besides the pages of docs/: README.md as its start, two more pages, and the executed notebooks.

Links are written for readers of the repository and turned here to where the site has the page. MkDocs calls `on_files`
and `on_page_markdown`, see mkdocs.yml.
"""

from __future__ import annotations

import re
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "notebooks"))

from execute import Shown, executed  # noqa: E402

_STYLE = re.compile(r"<style.*?</style>\s*", re.DOTALL)


def on_files(files: Any, config: Any, **_: Any) -> Any:
    """Return the files of docs/ with those that are made here."""
    for source, page in (("README.md", "index.md"), ("CONTRIBUTING.md",) * 2, ("CHANGELOG.md",) * 2):
        text = (ROOT / source).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text.replace("](docs/", "](")))
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for name, content in _pages(path, path.read_bytes()).items():
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


@lru_cache(maxsize=16)
def _pages(path: Path, content: bytes) -> dict[str, str | bytes]:
    """Run a notebook, once for each content, and return its page and images by file name."""
    lines, found = [], dict[str, str | bytes]()
    with tempfile.TemporaryDirectory() as folder:
        for number, (cell, shown) in enumerate(executed(path, Path(folder)), start=1):
            code = re.sub(r"^%.*\n", "", cell.text, flags=re.MULTILINE)
            lines.append(f"```python\n{code}\n```" if cell.kind == "code" else cell.text.replace("](../docs/", "](../"))
            for own in shown:
                image = f"{path.stem}-{number:02d}.png"
                lines.append(_markdown(own, image))
                if isinstance(own.content, bytes):
                    found[image] = own.content
    return {f"{path.stem}.md": "\n\n".join(lines) + "\n", **found}


def _markdown(shown: Shown, image: str) -> str:
    if isinstance(shown.content, bytes):
        return f"![What the cell shows]({image})"
    if shown.kind == "html":
        return _STYLE.sub("", shown.content)
    return f"```text\n{shown.content.rstrip()}\n```"
