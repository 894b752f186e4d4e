"""The notebooks of examples/: run, and written back small and without what changes at every run.

python tests/support/notebooks.py             # all
python tests/support/notebooks.py quickstart  # one
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import KernelManager
from nbclient import NotebookClient

SUPPORT = Path(__file__).parent
EXAMPLES = SUPPORT.parents[1] / "examples"
#: A kernel runs this before the notebook.
SHORTEN = "import short_trainings; short_trainings.shorten(); del short_trainings, sys\n"
#: One thread: two on a busy machine wait for each other.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}


def execute(path: Path, folder: Path, *, briefly: bool = False) -> Any:
    """Run a notebook in a folder, with this Python, and give it with its outputs.

    ``briefly``: each training ends after two steps.
    """
    notebook = nbformat.read(path, as_version=4)
    kernel = Kernel()
    client = NotebookClient(
        notebook, timeout=300, km=kernel, resources={"metadata": {"path": str(folder)}}
    )
    before = os.environ.copy()
    settings = folder / ".ipython"
    os.environ.update(ENVIRONMENT, IPYTHONDIR=str(settings))
    if briefly:
        startup = settings / "profile_default" / "startup"
        startup.mkdir(parents=True)
        lines = f"import sys; sys.path.append({str(SUPPORT)!r})\n" + SHORTEN
        (startup / "shorten.py").write_text(lines)
    try:
        return client.execute()
    finally:
        if kernel.has_kernel:
            kernel.shutdown_kernel(now=True)
        os.environ.clear()
        os.environ.update(before)


def rewrite(path: Path, folder: Path) -> None:
    """Run a notebook and write it back with small outputs and no warnings."""
    notebook = execute(path, folder)
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # the same at every run
        cell.metadata = {}
        if cell.cell_type != "code":
            continue
        # Warnings name the folders of the machine that ran it.
        cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
        for output in cell.outputs:
            if "data" in output:
                output.metadata = nbformat.NotebookNode()
                output.data.pop("text/html", None)  # the text says the same in fewer bytes
                if "image/png" in output.data:
                    output.data["image/png"] = _smaller(output.data["image/png"])
    nbformat.validate(notebook)
    nbformat.write(notebook, path)


class Kernel(KernelManager):
    """A kernel of this interpreter, whatever kernels the machine knows."""

    @property
    def kernel_spec(self) -> KernelSpec:
        command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(argv=command, display_name="Python 3", language="python")


def _smaller(picture: str) -> str:
    """Write a picture with a palette of 64 colours."""
    from PIL import Image

    image = Image.open(io.BytesIO(base64.b64decode(picture))).convert("RGB")
    target = io.BytesIO()
    image.quantize(64, dither=Image.Dither.NONE).save(target, "PNG", optimize=True)
    return base64.b64encode(target.getvalue()).decode()


def main() -> None:
    """Rewrite the notebooks that are named, or all."""
    for path in sorted(EXAMPLES.glob("*.ipynb")):
        if not sys.argv[1:] or path.stem in sys.argv[1:]:
            with tempfile.TemporaryDirectory() as folder:
                rewrite(path, Path(folder))
            print(f"ran {path.name}")


if __name__ == "__main__":
    main()
