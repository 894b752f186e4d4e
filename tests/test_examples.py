"""The notebooks of examples/ run from top to bottom, and are kept small.

Trainings end after two steps; `make notebooks` runs them whole.
"""

import base64
import re

import pytest

pytest.importorskip("nbclient", reason="notebooks run where tsllm[test] is installed: make test")
pytest.importorskip("ipykernel", reason="notebooks run where tsllm[test] is installed: make test")
import nbformat
from notebooks import EXAMPLES, execute

NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
#: Characters of an output's text, and bytes of a picture.
MOST_TEXT, MOST_PICTURE = 4_000, 40_000


def outputs_of(notebook):
    for cell in notebook.cells:
        yield from cell.get("outputs", [])


def texts_of(notebook):
    for output in outputs_of(notebook):
        yield output.get("text") or output.get("data", {}).get("text/plain", "")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook_runs(path, tmp_path):
    pytest.importorskip("matplotlib")
    if path.stem == "serving":
        pytest.importorskip("mlflow")
    ran = execute(path, tmp_path, briefly=True)
    if "tsllm.load(" in path.read_text():
        assert "equal after loading: True" in "\n".join(texts_of(ran))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_committed_outputs_are_whole_and_small(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert any(outputs_of(notebook)), "run: make notebooks"
    for output in outputs_of(notebook):
        assert output.output_type != "error"
        assert output.get("name") != "stderr"  # warnings name folders of somebody's machine
        assert set(output.get("data", {})) <= {"text/plain", "image/png"}
        picture = base64.b64decode(output.get("data", {}).get("image/png", ""))
        assert len(picture) < MOST_PICTURE
    for text in texts_of(notebook):
        assert len(text) < MOST_TEXT
        assert not re.search(r"/(?:home|root|tmp|work)/", text)
