"""Output of commands: messages on stderr, tables on stdout, files written in one step."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import (
    AbstractContextManager,
    contextmanager,
    nullcontext,
    redirect_stderr,
    redirect_stdout,
)
from contextvars import ContextVar
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tsllm.errors import DataError
from tsllm.saving.files import in_one_step, write_text

if TYPE_CHECKING:
    import pandas as pd

    from tsllm.datasets.bad_series import SkippedSeries
    from tsllm.evaluation.ablation_report import AblationDocument
    from tsllm.evaluation.report import BacktestReport
    from tsllm.pages.page import Page

#: The endings of files with a table of forecasts.
TABLE_ENDINGS = (".csv", ".parquet", ".jsonl")
PICTURE_ENDINGS = (".png", ".svg", ".pdf")
PAGE_ENDINGS = (".html", ".htm")
#: The value of ``tsllm --log``; with "json", messages are lines of JSON.
log_form: ContextVar[Literal["text", "json"] | None] = ContextVar("log_form", default=None)

#: The warnings that the command has shown.
warned: ContextVar[Sequence[str]] = ContextVar("warned", default=())


def say(message: str, *, style: str = "") -> None:
    """Print a message on stderr, in colour on a terminal; with --log json, log it."""
    if log_form.get() == "json":
        from tsllm.logs import log_event

        levels = {"bold red": logging.ERROR, "yellow": logging.WARNING}
        log_event(logging.getLogger("tsllm.cli"), message, level=levels.get(style, logging.INFO))
        return
    from rich.console import Console

    console = Console(stderr=True, highlight=False, markup=False, emoji=False, soft_wrap=True)
    console.print(message, style=style)


def say_split(sizes: Mapping[str, Any]) -> None:
    """Print the published split of a benchmark."""
    if "train_size" in sizes:
        train, validation, test = (sizes[f"{p}_size"] for p in ("train", "validation", "test"))
        say(f"published split: {train}, {validation} and {test} steps")


@contextmanager
def silence() -> Iterator[None]:
    """Print nothing in this block: another process does the same and prints it."""
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stderr(nowhere),
        redirect_stdout(nowhere),
    ):
        yield


def working(what: str) -> AbstractContextManager[object]:
    """Show a status on stderr while a block runs, if stderr is a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"{what} ...")


def print_json(document: Any) -> None:
    """Print a document on stdout as JSON."""
    print(json.dumps(document, indent=1, allow_nan=False))


def print_table(rows: Sequence[Mapping[Any, Any]]) -> None:
    """Print rows on stdout as a table under the keys of the first."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0]:
        table.add_column(str(name), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(value) for value in row.values()))
    # Do not break lines in a file or a pipe.
    width = None if sys.stdout.isatty() else 10_000
    Console(file=sys.stdout, width=width, highlight=False, markup=False).print(table)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Turn a table into JSON values; stamps become text, missing values null."""
    columns = {str(name): _plain_cells(frame[name]) for name in frame.columns}
    return [dict(zip(columns, row)) for row in zip(*columns.values())]


def check_output(
    path: Path, option: str, endings: Sequence[str], *, directory: bool = False
) -> None:
    """Check that a file can be written, before any work is done for it.

    ``endings`` are in small letters; a file may have capital ones. ``directory`` says that the
    option also takes a directory.
    """
    if path.suffix.lower() not in endings:
        folder_too = ", or be a directory that exists or has no point in its name" * directory
        raise DataError(
            f"{option} must end in {' or '.join(endings)}{folder_too}, found {str(path)!r}"
        )
    if path.is_dir():
        raise DataError(f"{option} {str(path)!r} is a directory: give the name of a file in it")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise DataError(f"the folder of {option} {str(path)!r} does not exist: make it first")
    check_folder(folder, option)


def check_picture(path: Path | None) -> None:
    """Check that a picture can be drawn and written; None is no picture.

    Raises
    ------
    DataError
        As `check_output` does.
    ImportError
        Without matplotlib.
    """
    if path is None:
        return
    check_output(path, "--plot", PICTURE_ENDINGS)
    if find_spec("matplotlib") is None:
        raise ImportError("--plot needs matplotlib: pip install 'tsllm[plot]'")


def check_page(path: Path | None) -> None:
    """Check that a page can be drawn and written, as `check_picture` does; None is no page."""
    if path is None:
        return
    check_output(path, "--report", PAGE_ENDINGS)
    if find_spec("matplotlib") is None:
        raise ImportError("--report needs matplotlib: pip install 'tsllm[plot]'")


def check_folder(folder: Path, option: str) -> None:
    """Check that a folder can be written to, or made."""
    there = next(one for one in (folder, *folder.parents) if one.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise DataError(f"{option} cannot be written to {str(there)!r}: give another folder")


def write_table(frame: pd.DataFrame, path: Path) -> None:
    """Write a table of forecasts as CSV, Parquet or JSON lines, according to the ending."""
    with in_one_step(path) as temporary:
        if path.suffix.lower() == ".csv":
            frame.to_csv(temporary, index=False)
        elif path.suffix.lower() == ".parquet":
            frame.to_parquet(temporary, index=False)
        else:
            lines = (json.dumps(record, allow_nan=False) + "\n" for record in records(frame))
            temporary.write_text("".join(lines), encoding="utf-8")


def deliver(
    table: pd.DataFrame,
    out: Path | None,
    json: bool,
    beside: dict[str, Any],
    *,
    name: str = "forecast",
) -> None:
    """Write a table to a file or stdout; in JSON it is under ``name``, next to ``beside``."""
    if out is not None:
        write_table(table, out)
        say(f"wrote {out}, {count(len(table), 'rows')}")
    if json:
        rows = records(table) if out is None else None
        print_json({name: rows, "out": None if out is None else str(out), **beside})
    elif out is None:
        sys.stdout.write(table.to_csv(index=False))


def deliver_skipped(
    skipped: SkippedSeries | None,
    series: int,
    out: Path | None,
    table: Path | None = None,
    *,
    id_col: str = "series_id",
    listed_by: str = "--out or --json",
) -> dict[str, Any]:
    """Write the list of series left out beside the output, and print their number.

    ``series`` is the number of series that were forecast. ``table`` is the path of a list that is
    written already; None: it is named after ``out``. ``id_col`` is its column of the series.
    ``listed_by`` names the options that list them where there is neither. The result is for JSON,
    empty if no series was to be left out.
    """
    if skipped is None:
        return {}
    if table is None and out is not None:
        table = out.with_name(f"{out.stem}.skipped.csv")
        write_table(skipped.table(id_col), table)
    where = f", which {listed_by} lists" if table is None else f", listed in {table}"
    if skipped.reasons:
        said = skipped.sentence(series + len(skipped.reasons), where)
        say(f"Warning: {said}", style="yellow")
    return {"skipped": skipped.table(id_col).to_dict("records")}


def deliver_ablation(
    report: AblationDocument,
    *,
    out: Path | None,
    markdown: Path | None,
    plot: Path | None,
    page: Path | None,
    settings: Mapping[str, Any],
    json: bool,
) -> None:
    """Write the report of an ablation; the verdict is the last line.

    ``settings`` are those of the job, for the page.
    """
    write_report(report, out, markdown)
    if plot is not None:
        write_picture(report.plot().figure, plot)
        say(f"wrote {plot}")
    if page is not None:
        from tsllm.reports import report_ablation

        write_page(report_ablation(report, settings=settings), page)
    if json:
        print_json(report.to_dict())
        return
    print_table(report.summary().to_dict("records"))
    for note in report.notes:
        print(f"\nnote: {note}")
    print(f"\n{report.verdict}")


def write_report(
    report: AblationDocument | BacktestReport, out: Path | None, markdown: Path | None
) -> None:
    """Write a report as JSON and as Markdown, where a path is given."""
    if out is not None:
        write_text(report.to_json(), out)
        say(f"wrote {out}")
    if markdown is not None:
        write_text(report.to_markdown(), markdown)
        say(f"wrote {markdown}")


def check_report_files(out: Path | None, markdown: Path | None) -> None:
    """Check that the files of a report can be written; see `check_output`."""
    for path, option, ending in ((out, "--out", ".json"), (markdown, "--markdown", ".md")):
        if path is not None:
            check_output(path, option, (ending,))


def count(number: int, things: str) -> str:
    """Return a number with a noun, in the singular for 1."""
    return f"{number:,} {things[:-1] if number == 1 and things != 'series' else things}"


def write_picture(figure: Any, path: Path) -> None:
    """Write a matplotlib figure."""
    with in_one_step(path) as temporary:
        figure.savefig(temporary, dpi=120)


def write_page(page: Page, path: Path) -> None:
    """Write a page of HTML; the warnings of this command are among its notes."""
    with working("drawing the report"):
        replace(page, notes=[*page.notes, *warned.get()]).save(path)
    say(f"wrote {path}")


def _plain_cells(column: pd.Series) -> list[Any]:
    """Return the cells of a column as JSON values."""
    missing = column.isna()
    if column.dtype.kind in "mM" or str(column.dtype).startswith("period"):
        column = column.astype(str)
    cells = column.astype(object).tolist()
    return [
        None if gone or cell in (math.inf, -math.inf) else cell
        for gone, cell in zip(missing, cells)
    ]


def _cell(value: Any) -> str:
    """Format one cell of a table."""
    if value is None or value != value:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.0f}" if value.is_integer() else f"{value:.4g}"
    return str(value)
