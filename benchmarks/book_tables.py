"""How results become Markdown: numbers, tables, and any JSON document that no section knows."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

#: What one JSON file holds.
Results = dict[str, Any]
#: The files of a section, by their names without the ending: what each view is given.
Known = dict[str, Results]
#: A list of more rows is cut in the generic tables; the file itself holds all.
MOST_ROWS = 40
#: What is said in a line of its own, or says nothing about the result.
LEFT_OUT = ("machine", "memory", "notes")


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write a Markdown table; numbers become four significant digits."""
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(cell(value) for value in row) + " |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """Write a value into a cell of a table."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
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


def number(value: float) -> str:
    """Write a number with four significant digits, without exponents where they can be avoided."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    if abs(value) < 1e-4:
        return f"{value:.2e}"
    digits = max(0, 3 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def error(value: float | None, spread: float | None = None) -> str:
    """Write an error with three decimals, and its standard deviation over seeds in brackets."""
    if value is None:
        return "–"
    if spread is None or math.isnan(spread):
        return f"{value:.3f}"
    return f"{value:.3f} ({spread:.3f})"


def mean_and_sd(values: Sequence[float]) -> tuple[float, float | None]:
    """Give mean and sample standard deviation; no deviation for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((one - mean) ** 2 for one in values) / (len(values) - 1))


def over_seeds(rows: Sequence[Results]) -> list[Results]:
    """Join records that differ in their seed: a record for each combination of words in them."""
    groups: dict[tuple[Any, ...], list[Results]] = {}
    for row in rows:
        words = tuple(one for one in row.values() if isinstance(one, str | bool))
        groups.setdefault((*words, row.get("horizon")), []).append(row)
    return [
        {
            **{
                key: row[key] if key == "horizon" else _joined([one.get(key) for one in group])
                for row in group[:1]
                for key in row
                if key != "seed"
            },
            "seeds": len({row.get("seed") for row in group}),
        }
        for group in groups.values()
    ]


def _joined(values: Sequence[Any]) -> Any:
    """Join the values of several seeds: mean and spread of numbers, part by part of lists."""
    first = values[0]
    if all(_is_number(value) for value in values):
        mean, spread = mean_and_sd(values)
        return number(mean) + (f" ({number(spread)})" if spread is not None else "")
    if all(isinstance(value, list) and len(value) == len(first) for value in values):
        return [_joined(part) for part in zip(*values, strict=True)]
    if all(isinstance(value, dict) and value.keys() == first.keys() for value in values):
        return {key: _joined([value[key] for value in values]) for key in first}
    return first if all(value == first for value in values) else "differs"


def seconds(value: float) -> str:
    """Write a duration."""
    if value < 1:
        return f"{1000 * value:.3g} ms"
    return f"{value:.3g} s" if value < 1000 else f"{value:,.0f} s"


def machine_of(results: Results) -> str:
    """Say on what a file's figures were measured."""
    one = results.get("machine") or {}
    if not one:
        return "machine not recorded"
    chip = one.get("gpu") or f"{one['cores']} cores of {one['cpu']}"
    return (
        f"{chip}, {one['torch_threads']} torch threads, load {one['load_1min']} at the end, "
        f"torch {one['torch']}, {one['date']}"
    )


def by_horizon(rows: Iterable[Results], *, metric: str = "mse") -> str:
    """Write records of (method, horizon) as a table: a row a method, its error at each horizon.

    Where records carry a seed each, mean and spread are taken here; where they carry
    ``<metric>_sd`` the spread is theirs.
    """
    found: dict[str, dict[int, list[Results]]] = {}
    for row in rows:
        found.setdefault(row["method"], {}).setdefault(row["horizon"], []).append(row)
    horizons = sorted({horizon for each in found.values() for horizon in each})
    lines = []
    for method, each in found.items():
        cells, means = [method], []
        for horizon in horizons:
            values = [row[metric] for row in each.get(horizon, [])]
            if not values:
                cells.append("–")
                continue
            mean, spread = mean_and_sd(values)
            means.append(mean)
            spread = each[horizon][0].get(f"{metric}_sd") if len(values) == 1 else spread
            cells.append(error(mean, spread))
        complete = len(means) == len(horizons)
        average = [error(sum(means) / len(means)) if complete else "–"] if len(horizons) > 1 else []
        lines.append([*cells, *average])
    header = [metric.upper(), *map(str, horizons), *(["average"] if len(horizons) > 1 else [])]
    return table(header, lines)


def paired(rows: Iterable[Results]) -> str:
    """Write paired differences with their intervals."""
    return table(
        ["first − second", "horizon", "difference in MSE", "95 % interval"],
        [
            [
                f"{row['method_a']} − {row['method_b']}",
                str(row["horizon"]),
                f"{row['difference']:+.4f}",
                _interval(row["lower"], row["upper"]),
            ]
            for row in rows
            if row.get("metric") == "mse"
        ],
    )


def _interval(lower: float, upper: float) -> str:
    if math.isnan(lower) or math.isnan(upper):
        return "too few windows for one"
    return f"[{lower:+.4f}, {upper:+.4f}]"


def timings(entries: Iterable[tuple[str, Results]]) -> str:
    """Write medians with their 5th and 95th percentiles."""
    return table(
        ["what", "median", "5 %", "95 %", "runs"],
        [
            [name, seconds(one["p50"]), seconds(one["p5"]), seconds(one["p95"]), one["runs"]]
            for name, one in entries
        ],
    )


# ------------------------------------------------------------- a file that no section knows


def anything(results: Results) -> list[str]:
    """Write any document of results: its records as tables, everything else as a list."""
    single: list[tuple[str, Any]] = []
    blocks: list[str] = []
    _walk("", {key: one for key, one in results.items() if key not in LEFT_OUT}, single, blocks)
    if single:
        blocks.insert(0, table(["", ""], single))
    return blocks


def _walk(name: str, value: Any, single: list[tuple[str, Any]], blocks: list[str]) -> None:
    if isinstance(value, dict) and value:
        if all(_is_record(one) for one in value.values()) and len(value) > 1:
            blocks.append(_records(name, [{"": key, **one} for key, one in value.items()]))
            return
        for key, one in value.items():
            _walk(f"{name}, {key}" if name else str(key), one, single, blocks)
    elif isinstance(value, list) and value and all(isinstance(one, dict) for one in value):
        if all(_is_record(one) for one in value):
            blocks.append(_records(name, value))
        else:
            for place, one in enumerate(value):
                label = one.get("variant") or one.get("method") or one.get("set") or str(place)
                _walk(f"{name}, {label}" if name else str(label), one, single, blocks)
    elif isinstance(value, list) and value and all(isinstance(one, list) for one in value):
        header = [str(place) for place in range(max(len(one) for one in value))]
        blocks.append(_titled(name, table(["", *header], _numbered(value))))
    elif isinstance(value, list) and len(value) > 12:
        single.append((name, f"{len(value)} values"))
    else:
        single.append((name, value))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_record(value: Any) -> bool:
    """Tell whether a value is a flat record, or one whose nested parts are timings."""
    return isinstance(value, dict) and all(
        not isinstance(one, dict | list) or _short(one) for one in value.values()
    )


def _short(value: Any) -> bool:
    parts = value.values() if isinstance(value, dict) else value
    return len(value) <= 4 and not any(isinstance(one, dict | list) for one in parts)


def _records(name: str, rows: Sequence[Results]) -> str:
    if len({row.get("seed") for row in rows}) > 1:
        rows = over_seeds(rows)
    header = list(dict.fromkeys(key for row in rows for key in row))
    text = table(header, [[row.get(key) for key in header] for row in rows[:MOST_ROWS]])
    if len(rows) > MOST_ROWS:
        text += f"\n\n{len(rows) - MOST_ROWS} more rows are in the file."
    return _titled(name, text)


def _numbered(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    return [[str(place), *row] for place, row in enumerate(rows)]


def _titled(name: str, text: str) -> str:
    return f"*{name}*\n\n{text}" if name else text
