"""Markdown tables of a file of results: errors by horizon, paired differences, timings, records."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

#: Content of one JSON file.
Results = dict[str, Any]
#: Longer lists are cut in the generic tables; the file itself holds all rows.
MOST_ROWS = 40
#: Keys of a file that are no result, that are shown elsewhere or that are too long for a page.
_LEFT_OUT = (
    "machine", "memory", "notes", "recipe", "matrices", "by_step",
    "reports", "left_out", "store", "losses", "profile", "details",
)  # fmt: skip
#: The only figures beside its tables that a file with a ``table`` shows.
_BESIDE_A_TABLE = ("paired", "costs", "verdict", "weights", "time_unit", "ticks")
#: Columns that stay in the file.
_COLUMNS_LEFT_OUT = (
    "loss", "within80", "error80", "lowest95", "highest95", "error95", "outside95", "within95",
    "test_events", "notes", "train_loss", "first_similarity", "last_similarity",
    "final_time_rmse", "final_time_mae", "plasticity_type_error", "forgetting_type_error",
)  # fmt: skip
_METRICS = ("mse", "mae", "smape", "mase", "crps")


def tables(results: Results) -> list[str]:
    """Return the blocks of a file of results, the main table first."""
    rest = {key: one for key, one in results.items() if key not in _LEFT_OUT}
    rows = rest.pop("table", [])
    blocks = []
    if rows:
        rest = {key: one for key, one in rest.items() if key in _BESIDE_A_TABLE}
        blocks = [*accuracy(rows), training(rows)] if is_accuracy(results) else records("", rows)
    blocks.append(paired(rest.pop("paired", [])))
    single: list[tuple[str, Any]] = []
    for key, one in rest.items():
        _walk(key, one, single, blocks)
    if single and rows:
        blocks += [f"{name.capitalize()}: {cell(value)}." for name, value in single]
    elif single:
        blocks.append(table(["", ""], single))
    blocks += [f"Note: {note}." for note in results.get("notes") or []]
    return [block.replace("..", ".") for block in blocks if block]


# --------------------------------------------------------------------------------- accuracy


def is_accuracy(results: Results) -> bool:
    """Check if a file's table has the errors of methods by horizon."""
    rows = results.get("table") or [{}]
    return all({"method", "horizon"} <= row.keys() and _metrics(row) for row in rows)


def accuracy(rows: Sequence[Results], *, main: bool = False) -> list[str]:
    """Write the errors of methods, a table for each metric and set; ``main``: one metric."""
    by_set: dict[str, list[Results]] = {}
    for row in rows:
        by_set.setdefault(row.get("set", ""), []).append(row)
    metrics = _metrics(rows[0])
    each = [len({row["horizon"] for row in mine}) for mine in by_set.values()]
    if len(by_set) > 1 and max(each) == 1:
        metrics.sort(key=lambda metric: metric != "mase")  # sets differ in their scale
        return [_set_by_method(by_set, metric) for metric in metrics[: 1 if main else None]]
    return [
        (f"*{name}*\n\n" if len(by_set) > 1 else "") + _by_horizon(mine, metric)
        for metric in metrics[: 1 if main else None]
        for name, mine in by_set.items()
    ]


def _metrics(row: Results) -> list[str]:
    return [key for key in row if key in _METRICS]


def _set_by_method(by_set: dict[str, list[Results]], metric: str) -> str:
    """Write sets in rows and methods in columns."""
    methods = list(dict.fromkeys(row["method"] for rows in by_set.values() for row in rows))
    body = []
    for name, rows in by_set.items():
        found = {method: [r for r in rows if r["method"] == method] for method in methods}
        cells = [_over_rows(found[method], metric) for method in methods]
        body.append([name, str(rows[0]["horizon"]), *cells])
    return table([_title(metric), "horizon", *methods], body)


def _title(metric: str) -> str:
    return "sMAPE" if metric == "smape" else metric.upper()


def _by_horizon(rows: Sequence[Results], metric: str) -> str:
    """Write methods in rows and horizons, or folds, in columns, and the average."""
    column = "horizon"
    if "fold" in rows[0]:
        rows = [row for row in rows if row["horizon"] == "all"] or _over_horizons(rows, metric)
        column = "fold"
    if {row.get("scored_on", "all") for row in rows} > {"all"}:
        rows = [
            row if row["scored_on"] == "all" else row | {"method": f"{row['method']}, few windows"}
            for row in rows
        ]
    columns = sorted({row[column] for row in rows}, key=lambda one: (isinstance(one, str), one))
    body = []
    for method in dict.fromkeys(row["method"] for row in rows):
        mine = [row for row in rows if row["method"] == method]
        found = [[row for row in mine if row[column] == one] for one in columns]
        cells = [method, *(_over_rows(group, metric) for group in found)]
        if column == "horizon" and len(columns) > 1 and "all" not in columns:
            means = [_mean_and_sd([row[metric] for row in group])[0] for group in found if group]
            complete = len(means) == len(columns)
            cells.append(error(sum(means) / len(means)) if complete else "–")
        body.append(cells)
    header = [f"{_title(metric)}, {column}", *map(str, columns)]
    return table([*header, "average"] if body and len(body[0]) > len(header) else header, body)


def _over_horizons(rows: Sequence[Results], metric: str) -> list[Results]:
    """Average the errors of a method and fold over the horizons."""
    groups: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        groups.setdefault((row["method"], row["fold"]), []).append(row[metric])
    return [
        {"method": method, "fold": fold, metric: sum(errors) / len(errors)}
        for (method, fold), errors in groups.items()
    ]


def _over_rows(rows: Sequence[Results], metric: str) -> str:
    """Write mean and spread of rows that differ in their seed, or of one row with its spread."""
    values = [row[metric] for row in rows if row.get(metric) is not None]
    if not values:
        return "–"
    mean, spread = _mean_and_sd(values)
    return error(mean, rows[0].get(f"{metric}_sd") if len(values) == 1 else spread)


def training(rows: Sequence[Results]) -> str:
    """List the seconds that a training took; a range if each horizon has its own model."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if (row.get("fit_seconds") or 0) > 0.1:
            found.setdefault(row["method"], []).append(row["fit_seconds"])
    each = []
    for method, cost in found.items():
        low, high = seconds(min(cost)), seconds(max(cost))
        each.append(f"{method} {low}" + (f" to {high}" if low != high else ""))
    return f"Training a model: {'; '.join(each)}." if each else ""


def paired(rows: Sequence[Results]) -> str:
    """Write paired differences of the first metric, with their intervals."""
    rows = [row for row in rows if row["metric"] == rows[0]["metric"]]
    if not rows:
        return ""
    several = len({row.get("set") for row in rows}) > 1
    relative = any("relative" in row for row in rows)
    body = []
    for row in rows:
        cells = [row["set"]] if several else []
        cells += [f"{row['method_a']} − {row['method_b']}", str(row["horizon"])]
        cells += [f"{row['difference']:+.4f}", _interval(row["lower"], row["upper"])]
        if relative:
            cells.append(f"{100 * row['relative']:+.1f} %" if "relative" in row else "–")
        body.append(cells)
    header = ["set"] if several else []
    header += ["first − second", "horizon", f"difference in {_title(rows[0]['metric'])}"]
    header += ["95 % interval", *(["relative"] if relative else [])]
    return table(header, body)


def _interval(lower: float | None, upper: float | None) -> str:
    if lower is None or upper is None or math.isnan(lower) or math.isnan(upper):
        return "too few windows"
    return f"[{lower:+.4f}, {upper:+.4f}]"


# ----------------------------------------------------------------------- records and timings


def records(name: str, rows: Sequence[Results]) -> list[str]:
    """Write records as tables, one for each value of ``set``, seeds averaged."""
    blocks = []
    for own in dict.fromkeys(row.get("set") for row in rows):
        mine = [_flat({k: v for k, v in row.items() if k != "set"}) for row in rows
                if row.get("set") == own]  # fmt: skip
        if len({row["seed"] for row in mine if "seed" in row}) > 1:
            mine = _over_seeds(mine)
        header = [
            key for key in dict.fromkeys(key for row in mine for key in row)
            if key not in _COLUMNS_LEFT_OUT and not all(_empty(row.get(key)) for row in mine)
        ]  # fmt: skip
        text = table(
            [key.replace("_", " ") for key in header],
            [[row.get(key) for key in header] for row in mine[:MOST_ROWS]],
        )
        if len(mine) > MOST_ROWS:
            text += f"\n\n{len(mine) - MOST_ROWS} more rows are in the file."
        title = ", ".join(one.replace("_", " ") for one in (name, own or "") if one)
        blocks.append(f"*{title}*\n\n{text}" if title else text)
    return blocks


def _walk(name: str, value: Any, single: list[tuple[str, Any]], blocks: list[str]) -> None:
    """Collect the tables and the single figures of any document."""
    parts = list(value.values()) if isinstance(value, dict) else value
    if isinstance(value, list) and value and all(_is_record(one) for one in value):
        blocks += records(name, value)
    elif isinstance(value, dict) and len(value) > 1 and all(_is_record(one) for one in parts):
        rate = "per_second" in name
        rows = [{"": key, **(_timing(one, rate) or one)} for key, one in value.items()]
        blocks += records(name, rows)
    elif isinstance(value, dict) and value and not _timing(value) and name != "weights":
        for key, one in value.items():
            if key not in ("profile", "losses"):
                _walk(f"{name}, {key}", one, single, blocks)
    elif isinstance(value, list) and len(value) > 12:
        single.append((name, f"{len(value)} values"))
    else:
        single.append((name.replace("_", " "), _in_a_cell(value)))


def _is_record(value: Any) -> bool:
    """Check if a value is a flat record, or one whose nested parts are timings or short."""
    return isinstance(value, dict) and all(
        not isinstance(one, dict | list)
        or (len(one) <= 4 and not any(isinstance(part, dict | list) for part in
            (one.values() if isinstance(one, dict) else one)))
        for one in value.values()
    )  # fmt: skip


def _timing(value: Any, rate: bool = False) -> Results | None:
    """Return the columns of a median with its 5th and 95th percentile, or None."""
    if not isinstance(value, dict) or "p50" not in value:
        return None
    write = number if rate or value["p50"] > 1000 else seconds
    named = {"median": "p50", "5 %": "p5", "95 %": "p95"}
    return {key: write(value[one]) for key, one in named.items()} | {"runs": value.get("runs")}


def _flat(row: Results) -> Results:
    """Write the timings in a record as columns or as cells."""
    own = _timing(row)
    if own:
        row = {key: one for key, one in row.items() if key not in ("p50", "p5", "p95")} | own
    return {key: _in_a_cell(one) for key, one in row.items()}


def _in_a_cell(value: Any) -> Any:
    found = _timing(value)
    return f"{found['median']} ({found['5 %']} to {found['95 %']})" if found else value


def _over_seeds(rows: Sequence[Results]) -> list[Results]:
    """Join records that differ in their seed: one record for each combination of words."""
    groups: dict[tuple[Any, ...], list[Results]] = {}
    for row in rows:
        words = tuple(one for one in row.values() if isinstance(one, str | bool))
        groups.setdefault((*words, row.get("horizon")), []).append(row)
    return [
        {
            **{key: _joined([one.get(key) for one in group]) for key in group[0] if key != "seed"},
            "seeds": len(group),
        }
        for group in groups.values()
    ]


def _joined(values: Sequence[Any]) -> Any:
    """Join the values of several seeds: mean and spread of numbers."""
    if len(set(map(str, values))) == 1:
        return values[0]
    if all(isinstance(one, int | float) for one in values):
        mean, spread = _mean_and_sd(values)
        return number(mean) + (f" ({number(spread)})" if spread is not None else "")
    return "differs"


def _mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Return mean and sample standard deviation; no deviation for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1))


# ------------------------------------------------------------------------------------- cells


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Write a value into a cell of a table; numbers become four significant digits."""
    if _empty(value):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return number(value)
    if isinstance(value, list | tuple):
        return ", ".join(cell(one) for one in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {cell(one)}" for key, one in value.items())
    return str(value).replace("|", "\\|")


def _empty(value: Any) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


def number(value: float) -> str:
    """Write a number with four significant digits, without an exponent if possible."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def error(value: float, spread: float | None = None) -> str:
    """Write an error with three decimals, and its standard deviation over seeds in brackets."""
    if not 0.01 <= abs(value) < 100:  # of unscaled values
        return number(value)
    return f"{value:.3f}" if _empty(spread) else f"{value:.3f} ({spread:.3f})"


def seconds(value: float) -> str:
    """Write a duration."""
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def machine_of(results: Results) -> str:
    """Describe the machine of a file of results."""
    one = results.get("machine") or {}
    if not one:
        return "machine not recorded"
    chip = one.get("gpu") or f"{one['cores']} cores of {one['cpu']}"
    return (
        f"{chip}, {one['torch_threads']} torch threads, load {one['load_1min']} at the end, "
        f"torch {one['torch']}, {one['date']}"
    )
