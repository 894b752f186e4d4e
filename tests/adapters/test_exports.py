"""The public names of `tsllm.adapters`, and what they import."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tsllm import adapters

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "adapters.md"


@pytest.mark.parametrize("name", adapters.__all__)
def test_a_public_name_is_there_and_in_the_reference(name):
    member = getattr(adapters, name)
    assert member.__name__ == name
    assert re.search(rf"^::: {member.__module__}$", REFERENCE.read_text(encoding="utf-8"), re.M)
    assert name in dir(adapters)


def test_an_unknown_name_is_named():
    with pytest.raises(AttributeError, match=r"'tsllm\.adapters' has no attribute 'Unknown'"):
        adapters.Unknown  # noqa: B018


@pytest.mark.long
def test_all_names_can_be_imported_on_lean_machines():
    heavy = ("sktime", "mlflow", "ray", "lmdb", "typer", "pandas", "transformers")
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({heavy!r}));"
        "from tsllm.adapters import *; print(AutoTimesModel(None, 4).token_length)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.stdout == "4\n", run.stderr


@pytest.mark.long
def test_one_model_imports_no_other():
    code = (
        "import sys; from tsllm.adapters import DLinearModel;"
        "print(sorted(m for m in sys.modules if m.startswith('tsllm.adapters.')))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "['tsllm.adapters.baselines', 'tsllm.adapters.layers']\n"
