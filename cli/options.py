"""The options that several commands share, and lists written with commas."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

import typer

from tsllm.errors import DataError

Number = TypeVar("Number", int, float)

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .csv.gz, .parquet or .jsonl file, a directory of Parquet parts, - for CSV "
        "from stdin, or a name that 'tsllm datasets' lists; a file of that name goes first.",
        show_default=False,
    ),
]
IdCol = Annotated[
    str | None, typer.Option("--id-col", help="Column with the series' names.", metavar="NAME")
]
TimeCol = Annotated[
    str | None, typer.Option("--time-col", help="Column with the times.", metavar="NAME")
]
TargetCol = Annotated[
    list[str] | None,
    typer.Option("--target-col", help="A column with values; repeat for more.", metavar="NAME"),
]
Freq = Annotated[
    str | None,
    typer.Option("--freq", help="Frequency, such as h, D, W, MS; else inferred.", metavar="FREQ"),
]
Fill = Annotated[
    str | None,
    typer.Option(
        "--fill", help="Fill gaps with nan, ffill or interpolate; else an error.", metavar="HOW"
    ),
]
Resample = Annotated[
    str | None,
    typer.Option(
        "--resample",
        help="Bring irregular times to the steps of --freq by mean, sum or last; else an error.",
        metavar="HOW",
    ),
]
Covariates = Annotated[
    str | None,
    typer.Option(
        "--covariates",
        help="Columns, such as temperature,holiday, that say something about the values and whose "
        "future is known.",
        metavar="NAMES",
    ),
]
PastCovariates = Annotated[
    str | None,
    typer.Option(
        "--past-covariates", help="The same, for columns that end with the data.", metavar="NAMES"
    ),
]
Future = Annotated[
    str | None,
    typer.Option(
        "--future",
        help="A second table, with the covariates of the steps to forecast.",
        metavar="FILE",
    ),
]
Sort = Annotated[bool | None, typer.Option("--sort", help="Sort each series by time.")]
Method = Annotated[
    str | None, typer.Option("--method", help="Default: autotimes.", metavar="METHOD")
]
Horizon = Annotated[
    int | None, typer.Option("--horizon", help="Steps to forecast.", metavar="STEPS")
]
Quantiles = Annotated[
    str | None,
    typer.Option(
        "--quantiles", help="Levels, default .1,.5,.9; none for no quantiles.", metavar="LEVELS"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML with these options (dashes as underscores; target_cols, data) and, under "
        "'parameters', those of the method. Options given here go first.",
        metavar="FILE",
    ),
]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A parameter of the method, such as max_steps=100; repeat for more.",
        metavar="KEY=VALUE",
    ),
]
Horizons = Annotated[
    str | None,
    typer.Option("--horizons", help="Steps to forecast, such as 96,192.", metavar="STEPS"),
]
TestSize = Annotated[
    int | None,
    typer.Option(
        "--test-size",
        help="Steps of each series' test part. Default: a fifth of the series, or for a "
        "benchmark its published split.",
        metavar="STEPS",
    ),
]
TestFraction = Annotated[
    float | None,
    typer.Option("--test-fraction", help="Its share of the series.", metavar="SHARE"),
]
Stride = Annotated[
    int | None,
    typer.Option("--stride", help="Steps between forecast origins, default 1.", metavar="STEPS"),
]
ReportOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write the report to a .json file.", metavar="FILE"),
]
Markdown = Annotated[
    Path | None,
    typer.Option("--markdown", help="Write the report to a .md file.", metavar="FILE"),
]
AblationSeeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Train once for each seed, default 0,1,2.", metavar="SEEDS"),
]
AblationPlot = Annotated[
    Path | None,
    typer.Option(
        "--plot", help="Draw the differences to a .png, .svg or .pdf file.", metavar="FILE"
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        "-o",
        help="Write the table to a .csv, .parquet or .jsonl file; else CSV on stdout.",
        metavar="FILE",
    ),
]
ModelOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The directory to save the model to.", metavar="MODEL_DIR"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model in MODEL_DIR.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def whole_numbers(option: str, text: str | None) -> list[int] | None:
    """Read ``96,192``; None where the option was not given."""
    return _numbers(option, text, int, "whole numbers such as 96,192")


def levels(option: str, text: str | None) -> list[float] | None:
    """Read ``.1,.5,.9``; None where the option was not given."""
    return _numbers(option, text, float, "numbers such as .1,.5,.9")


def names(text: str | None) -> list[str] | None:
    """Read ``a,b``; ``none`` is no name, and None where the option was not given."""
    if text is None:
        return None
    return [] if text.strip() in ("", "none") else [name.strip() for name in text.split(",")]


def _numbers(
    option: str, text: str | None, kind: Callable[[str], Number], wanted: str
) -> list[Number] | None:
    """Read numbers between commas."""
    cells = names(text)
    try:
        return None if cells is None else [kind(cell) for cell in cells]
    except ValueError:
        raise DataError(f"{option} must be {wanted}, found {text!r}") from None
