"""The documentation is true: its code runs, its figures are the results', its links lead on."""

import importlib
import os
import re
import shutil
import subprocess
import sys
import warnings
from importlib.util import find_spec
from pathlib import Path

import pytest
from long_frames import long_frame, write_parts
from short_trainings import TRAINERS, train_briefly

import tsllm

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
GUIDES = sorted((ROOT / "docs" / "guides").glob("*.md"))
#: A block, unless a comment before it says why it is not run.
BLOCK = re.compile(r"(?<!-->\n)^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
#: Modules whose public names the reference must hold.
PUBLIC = [
    "tsllm",
    "tsllm.backbone",
    "tsllm.batch",
    "tsllm.datasets",
    "tsllm.embeddings",
    "tsllm.evaluation",
    "tsllm.events",
    "tsllm.mlflow",
    "tsllm.reports",
]


def name_of(page):
    return str(page.relative_to(ROOT))


# ------------------------------------------------------------------------------ code


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder with the files that the pages speak of; trainings end after two steps."""
    monkeypatch.chdir(tmp_path)
    frame = long_frame(3, steps=60)
    frame.to_csv("sales.csv", index=False)
    write_parts(frame, tmp_path / "parts", [80])
    clicks = tsllm.datasets.make_hawkes(
        [0.3, 0.2], [[0.3, 0.1], [0.1, 0.3]], [2.0, 2.0], t_end=100, n_sequences=3, random_state=0
    )
    clicks.events.to_frame().to_csv("clicks.csv", index=False)

    for module in TRAINERS:
        monkeypatch.setattr(module, "train", train_briefly)
    return tmp_path


@pytest.mark.parametrize("page", [p for p in PAGES if BLOCK.search(p.read_text())], ids=name_of)
def test_the_blocks_of_a_page_run_one_after_another(page, workplace, capsys):
    text = page.read_text()
    names = {"__name__": "__main__"}
    for block in BLOCK.finditer(text):
        # Padded, so that a traceback names the line of the page.
        padding = "\n" * (text[: block.start()].count("\n") + 1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two steps train no model to be proud of
            exec(compile(padding + block[1], name_of(page), "exec"), names)


# --------------------------------------------------------------------------- figures


def test_the_benchmark_page_is_what_the_results_make():
    run = _book("--check")
    assert run.returncode == 0, run.stdout + run.stderr


def test_a_result_without_a_section_is_listed_and_a_benchmark_without_results_is_left_out(tmp_path):
    copy = _book_without_results(tmp_path)
    (copy / "benchmarks" / "results" / "something_new.json").write_text(
        '{"rows": [{"variant": "a", "seed": 0, "mse": 0.25}, '
        '{"variant": "a", "seed": 1, "mse": 0.75}], "settings": {"steps": 12345}}'
    )
    assert _book(root=copy).returncode == 0
    page = (copy / "docs" / "benchmarks.md").read_text()
    assert "### something_new" in page
    assert "12,345" in page
    assert "| a | 0.5000 (0.3536) | 2 |" in page  # joined over the seeds
    assert "AutoTimes on ETTh1" not in page


def test_two_sections_that_show_the_same_result_are_refused(tmp_path):
    copy = _book_without_results(tmp_path)
    (copy / "benchmarks" / "results" / "batch_a.json").write_text('{"rows": [{"mse": 0.25}]}')
    template = copy / "benchmarks" / "book.md"
    section = "## Again\n\n{{ batch_a*; benchmarks/speed/batch.py }}\n\n"
    template.write_text(template.read_text().replace("## Other results", section + "## Rest"))
    run = _book(root=copy)
    assert run.returncode != 0
    assert "batch_a.json in two sections" in run.stderr


def _book_without_results(folder):
    """Copy benchmarks/ and leave the results out."""
    copy = folder / "repository"
    (copy / "docs").mkdir(parents=True)
    shutil.copytree(
        ROOT / "benchmarks", copy / "benchmarks", ignore=shutil.ignore_patterns("results")
    )
    (copy / "benchmarks" / "results").mkdir()
    return copy


def _book(*arguments, root=ROOT):
    return subprocess.run(
        [sys.executable, root / "benchmarks" / "book.py", *arguments],
        capture_output=True,
        text=True,
        # The script imports its neighbours.
        env={name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"},
    )


# ------------------------------------------------------------------ reference and site


@pytest.mark.parametrize("module", PUBLIC)
def test_every_public_name_is_in_the_reference(module):
    if module == "tsllm.mlflow":
        pytest.importorskip("mlflow")
    home = importlib.import_module(module)
    documented = [id(thing) for thing in _documented()]
    public = {name: getattr(home, name) for name in home.__all__}
    missing = [
        name
        for name, thing in public.items()
        if not name.isupper() and id(thing) not in documented  # constants: by what takes them
    ]
    assert not missing


def _documented():
    """Return the classes and functions of the reference, each by one of its names."""
    for page in (ROOT / "docs" / "reference").glob("*.md"):
        for path in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE):
            module, _, name = path.rpartition(".")
            if find_spec("mlflow") is None and module.startswith("tsllm.mlflow"):
                continue
            yield getattr(importlib.import_module(module), name, None)


@pytest.mark.parametrize("page", GUIDES, ids=name_of)
def test_a_guide_opens_with_what_its_reader_gets(page):
    opening = page.read_text().split("\n## ")[0]
    shown = re.search(r"^!\[|^\|---|^```(?:text|json)?\n\S", opening, re.MULTILINE)
    assert shown, f"{name_of(page)} has no picture and no table before its first heading"


def test_the_pictures_of_the_pages_are_small():
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size < 60_000, f"{picture.name}: run make images"


def test_every_adapter_is_in_the_reference():
    page = (ROOT / "docs" / "reference" / "adapters.md").read_text()
    folder = ROOT / "adapters"
    modules = {
        ".".join(path.relative_to(folder).with_suffix("").parts)
        for path in folder.rglob("*.py")
        if path.stem != "__init__"
    }
    assert modules == set(re.findall(r"^::: tsllm\.adapters\.([\w.]+)$", page, re.M))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / target).exists(), f"{name_of(page)} links to {target}"


def test_the_site_is_built_without_warnings(tmp_path):
    run = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
    )
    assert run.returncode == 0, run.stderr
    pages = "\n".join(page.read_text() for page in tmp_path.rglob("*.html"))
    assert "Parameters" in pages
    # Nothing is loaded from another host: links lead there, scripts, styles and images do not.
    assert not re.findall(r"<(?:script|img|iframe)[^>]*src=\"(?:https?:)?//", pages)
    assert not re.findall(r"<link[^>]*rel=\"stylesheet\"[^>]*href=\"(?:https?:)?//", pages)
