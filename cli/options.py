"""Options that several commands share, and the values of options that are lists."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from tsllm.errors import DataError

Number = TypeVar("Number", int, float)

Data = Annotated[
    str | None,
    typer.Argument(
        metavar="DATA",
        help="A .csv, .csv.gz, .parquet or .jsonl file, a directory of such files, - for CSV "
        "from stdin, or a data set that 'tsllm datasets' lists; a file has priority.",
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
    typer.Option(
        "--target-col",
        help="A column with values; repeat for more (YAML: target_cols). Default: value, y or "
        "target, else the only column of numbers; with predict, the variables of the model.",
        metavar="NAME",
    ),
]
Freq = Annotated[
    str | None,
    typer.Option(
        "--freq",
        help="Frequency, such as h, D, W, MS, or 5 for integers in steps of 5. Default: inferred.",
        metavar="FREQ",
    ),
]
Fill = Annotated[
    str | None,
    typer.Option(
        "--fill",
        help="Fill gaps with nan, zero, ffill or interpolate; for single columns such as "
        "sales=zero,promo=ffill. Default: a gap is an error.",
        metavar="HOW",
    ),
]
Resample = Annotated[
    str | None,
    typer.Option(
        "--resample",
        help="Aggregate rows at irregular or equal times to --freq by mean, sum or last. Default: "
        "they are an error.",
        metavar="HOW",
    ),
]
Covariates = Annotated[
    str | None,
    typer.Option(
        "--covariates",
        help="Columns with covariates whose future is known, such as temperature,holiday.",
        metavar="NAMES",
    ),
]
PastCovariates = Annotated[
    str | None,
    typer.Option(
        "--past-covariates",
        help="Columns with covariates whose future is not known.",
        metavar="NAMES",
    ),
]
Text = Annotated[
    str | None,
    typer.Option(
        "--text",
        help="Columns with a text about each step, such as report,promotion. --future gives the "
        "texts of the steps to forecast, unless --past-covariates names the column too.",
        metavar="NAMES",
    ),
]
StaticText = Annotated[
    str | None,
    typer.Option(
        "--static-text",
        help="Columns that describe a series in words: series with few rows are forecast from "
        "them.",
        metavar="NAMES",
    ),
]
NewSeries = Annotated[
    str | None,
    typer.Option(
        "--new-series",
        help="A table of series without any row yet: their names and the columns of --static-text.",
        metavar="FILE",
    ),
]
Future = Annotated[
    str | None,
    typer.Option(
        "--future",
        help="A table with the covariates and texts of the steps to forecast.",
        metavar="FILE",
    ),
]
Sort = Annotated[bool | None, typer.Option("--sort", help="Sort each series by time.")]
SkipBad = Annotated[
    bool | None,
    typer.Option(
        "--skip-bad",
        help="Leave out series that cannot be used, and list them with their reasons beside --out. "
        "Default: such a series is an error.",
    ),
]
Tz = Annotated[
    str | None,
    typer.Option(
        "--tz",
        help="Time zone of the series, such as Europe/Berlin. Stamps with an offset are converted.",
        metavar="ZONE",
    ),
]
TimeFormat = Annotated[
    str | None,
    typer.Option(
        "--time-format",
        help="How times are written, such as %d.%m.%Y or %Y%m. Default: year first.",
        metavar="FORMAT",
    ),
]
Sep = Annotated[
    str | None,
    typer.Option(
        "--sep",
        help="Character between the cells of CSV, such as ; or tab. Default: a comma.",
        metavar="CHARACTER",
    ),
]
Decimal = Annotated[
    str | None,
    typer.Option(
        "--decimal",
        help="Decimal sign in CSV: a point or a comma. Default: a point.",
        metavar="SIGN",
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding",
        help="Encoding of CSV, such as latin-1 or utf-16. Default: utf-8.",
        metavar="NAME",
    ),
]
#: Options that say how times and CSV are written.
WRITTEN = ("tz", "time_format", "sep", "decimal", "encoding")

_METHODS = "auto, zero_shot, autotimes, timecma, s2ip, aaren, linear, dlinear or patchtst. Default:"
Method = Annotated[
    str | None, typer.Option("--method", help=f"{_METHODS} autotimes.", metavar="METHOD")
]
FittedMethod = Annotated[
    str | None, typer.Option("--method", help=f"{_METHODS} auto.", metavar="METHOD")
]
Horizon = Annotated[
    int | None, typer.Option("--horizon", help="Steps to forecast.", metavar="STEPS")
]
Quantiles = Annotated[
    str | None,
    typer.Option(
        "--quantiles", help="Quantile levels, or none. Default: .1,.5,.9.", metavar="LEVELS"
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        help="YAML file with these options (names with underscores, data for DATA) and, under "
        "'parameters', with the method's. Options on the command line have priority.",
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
    typer.Option("--test-fraction", help="Share of each series in its test part.", metavar="SHARE"),
]
Stride = Annotated[
    int | None,
    typer.Option("--stride", help="Steps between forecast origins. Default: 1.", metavar="STEPS"),
]
ReportOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Write the report to a .json file.", metavar="FILE"),
]
Markdown = Annotated[
    Path | None,
    typer.Option("--markdown", help="Write the report to a .md file.", metavar="FILE"),
]
Report = Annotated[
    Path | None,
    typer.Option(
        "--report",
        help="Write one page for people who read no tables to a .html file: verdict, pictures, "
        "tables, settings.",
        metavar="FILE",
    ),
]
AblationSeeds = Annotated[
    str | None,
    typer.Option("--seeds", help="Train once per seed. Default: 0,1,2.", metavar="SEEDS"),
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
        help="Write the table to a .csv, .parquet or .jsonl file. Default: CSV on stdout.",
        metavar="FILE",
    ),
]
ModelOut = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="The directory to save the model to.", metavar="MODEL_DIR"),
]
Checkpoint = Annotated[
    Path | None,
    typer.Option(
        "--checkpoint",
        help="Save the training under way to DIR. A run that was stopped continues when it is "
        "started again. DIR is removed when the model is saved.",
        metavar="DIR",
    ),
]
Backbone = Annotated[
    str | None,
    typer.Option(
        "--backbone",
        help="The place of the model's language model now, if its files have moved.",
        metavar="PLACE",
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the model in MODEL_DIR.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")]


def whole_numbers(option: str, text: str) -> list[int]:
    """Read ``96,192``."""
    return _numbers(option, text, int, "whole numbers such as 96,192")


def levels(option: str, text: str) -> list[float]:
    """Read ``.1,.5,.9``."""
    return _numbers(option, text, float, "numbers such as .1,.5,.9")


def names(option: str, text: str) -> list[str]:
    """Read ``a,b``; ``none`` and ``null``, in any case of letters, are an empty list."""
    if text.strip().lower() in ("", "none", "null"):
        return []
    return [name.strip() for name in text.split(",")]


def seconds(option: str, text: str) -> float:
    """Read a number of seconds; ``none`` is infinite."""
    if text.strip().lower() in ("none", "null"):
        return math.inf
    found = _numbers(option, text, float, "a number of seconds, or none")
    if len(found) != 1 or not found[0] > 0:
        raise DataError(f"{option} must be a number of seconds above 0, or none, found {text!r}")
    return found[0]


def fill(option: str, text: str) -> str | dict[str, str]:
    """Read one word, or ``sales=zero,promo=ffill``."""
    if "=" not in text:
        return text
    pairs = [pair.partition("=") for pair in text.split(",")]
    if not all(name.strip() and equals for name, equals, _ in pairs):
        raise DataError(
            f"{option} must be one word such as zero, or a word for each column such as "
            f"sales=zero,promo=ffill, found {text!r}"
        )
    named = [name.strip() for name, _, _ in pairs]
    twice = [name for name in named if named.count(name) > 1]
    if twice:
        raise DataError(f"{option} names the column {twice[0]!r} twice; give it one word")
    return {name.strip(): word.strip() for name, _, word in pairs}


def window(option: str, text: str) -> list[float | str]:
    """Read ``START,END``: numbers, or stamps as they are written."""
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != 2:
        raise DataError(f"{option} must be START,END, found {text!r}")
    return [time(part) for part in parts]


def separator(option: str, text: str) -> str:
    """Read the character between cells; a tab may be written in letters."""
    return "\t" if text in ("tab", "\\t") else text


def time(text: str) -> float | str:
    """Read a time: a number, or a stamp as it is written."""
    try:
        return float(text)
    except ValueError:
        return text


#: The functions that read the text of options, by the option's name.
READERS: dict[str, Callable[[str, str], Any]] = {
    "baselines": names,
    "covariates": names,
    "fill": fill,
    "horizons": whole_numbers,
    "past_covariates": names,
    "quantiles": levels,
    "seeds": whole_numbers,
    "sep": separator,
    "static_text": names,
    "text": names,
    "time_limit": seconds,
    "variants": names,
    "windows": window,
}


def read(context: typer.Context, name: str) -> Any:
    """Return the value of an option of the command that runs; None where it was not given."""
    value = context.params.get(name)
    if value is None or name not in READERS:
        return value or None if isinstance(value, list | tuple) else value
    return READERS[name](f"--{name.replace('_', '-')}", value)


def written(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of `WRITTEN` as arguments of a reader, which calls one of them format."""
    return {"format" if name == "time_format" else name: values[name] for name in WRITTEN}


def written_in(context: typer.Context) -> dict[str, Any]:
    """Return the arguments of `written` for a command without a job."""
    return written({name: read(context, name) for name in WRITTEN})


def refuse(context: typer.Context, names: Sequence[str], why: str) -> None:
    """Refuse options that were given and have no effect, before any work is done.

    ``why`` completes the sentence "--option has no effect ...". The names are those of the
    command's parameters.
    """
    for name in names:
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            shown = "DATA" if name == "data" else f"--{name.rstrip('_').replace('_', '-')}"
            raise DataError(f"{shown} has no effect {why}")


def _numbers(option: str, text: str, kind: Callable[[str], Number], wanted: str) -> list[Number]:
    """Read numbers between commas."""
    try:
        return [kind(cell) for cell in names(option, text)]
    except ValueError:
        raise DataError(f"{option} must be {wanted}, found {text!r}") from None
