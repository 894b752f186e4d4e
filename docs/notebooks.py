"""MkDocs hook: the notebooks of examples/ as pages of the site, with their stored outputs."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File

EXAMPLES = Path(__file__).parents[1] / "examples"
#: A link from a page to a notebook of the repository.
_LINK = re.compile(r"\((?:\.\./)+examples/(\w+)\.ipynb\)")


def on_files(files: Any, config: Any) -> Any:
    """Add a page for each notebook, its pictures, and the notebook itself to download."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        text, pictures = as_page(path)
        made = {f"notebooks/{path.stem}.md": text, f"notebooks/{path.name}": path.read_bytes()}
        for name, content in (made | pictures).items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links to notebooks of the repository to their pages."""
    up = "../" * page.file.src_uri.count("/")
    return _LINK.sub(rf"({up}notebooks/\1.md)", markdown)


def as_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Return a notebook as Markdown, and its pictures by their place in the site."""
    parts: list[str] = []
    pictures: dict[str, bytes] = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            parts.append(source)
            continue
        parts.append(_fenced("python", source))
        for output in cell["outputs"]:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{len(pictures)}.png"
                pictures[f"notebooks/{name}"] = base64.b64decode(data["image/png"])
                parts.append(f"![Output of the cell above]({name})")
            else:
                text = output.get("text") or data.get("text/plain", "")
                parts.append(_fenced("text", "".join(text)))
    title, *rest = parts
    told = f"This page is the notebook [examples/{path.name}]({path.name}) with its outputs."
    return "\n\n".join([title, told, *rest]) + "\n", pictures


def _fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````"
