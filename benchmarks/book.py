"""Write docs/benchmarks.md from the JSON files of benchmarks/results.

The words are in benchmarks/book.md and the figures are in the results. A directive
``{{ shown | folded; command }}`` names result files, with wildcards. The page has the first table
of each shown file; a folded note has every other table of both, and the command that repeats them.
Files that no section names are listed where ``{{ rest }}`` stands. Needs nothing but Python.

    python benchmarks/book.py           # writes the page
    python benchmarks/book.py --check   # fails if the committed page differs
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from fnmatch import fnmatch
from pathlib import Path

from book_tables import Results, accuracy, is_accuracy, machine_of, seconds, tables

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "benchmarks" / "book.md"
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
_DIRECTIVE = re.compile(r"\{\{ (?:rest|([^;|]+?)(?: \| ([^;]+))?; ([^}]+)) \}\}")


def main() -> int:
    """Write the page, or compare it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="only compare")
    text = page(TEMPLATE.read_text(encoding="utf-8"), read_results(RESULTS))
    if arguments.parse_args().check:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/benchmarks.md differs from what the results make: run make benchmarks-page")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def read_results(folder: Path) -> dict[str, Results]:
    """Read every JSON file of a folder, by its name without the suffix."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def page(template: str, results: dict[str, Results]) -> str:
    """Fill the template: each directive becomes the tables of its files."""
    left = dict(results)
    parts = []
    for section in re.split(r"^(?=## )", template, flags=re.MULTILINE):
        directive = _DIRECTIVE.search(section)
        if directive is None:
            parts.append(section)
            continue
        shown, folded, command = directive.groups()
        if shown is None:
            known, left = left, {}
            text = "\n\n".join(
                "\n\n".join([f"### {name}", *tables(one), source(name, one)])
                for name, one in known.items()
            )
        else:
            first = matching(results, shown)
            known = first | matching(results, folded or "")
            twice = sorted(known.keys() - left.keys())
            if twice:
                raise SystemExit(f"benchmarks/book.md shows {twice[0]}.json in two sections")
            left = {name: one for name, one in left.items() if name not in known}
            text = section_text(first, known, command)
        if known:  # a benchmark without results has no section
            parts.append(section.replace(directive.group(), text))
    return "".join(parts)


def section_text(shown: dict[str, Results], known: dict[str, Results], command: str) -> str:
    """Return the main tables of the shown files, and a folded note with all the rest.

    The rows of several shown files with errors by horizon are joined.
    """
    rows: dict[tuple[object, ...], Results] = {}
    blocks, note = [], []
    for name, one in known.items():
        more, main = tables(one), 0
        if name in shown and is_accuracy(one):
            for row in one["table"]:  # of a method in several files the first figures are shown
                key = ("set", "method", "horizon", "fold", "seed", "scored_on")
                rows.setdefault(tuple(row.get(part) for part in key), row)
            main = len(accuracy(one["table"], main=True))
        elif name in shown:
            blocks.append(more[0])
            main = 1
        more = [block for block in more[main:] if block not in note]
        note += [f"**{name}**", *more] if more else []
    blocks += accuracy(list(rows.values()), main=True) if rows else []
    note += ["Measured on:", "\n".join(f"- {source(name, one)}" for name, one in known.items())]
    folded = "\n\n".join(note).replace("\n", "\n    ").replace("\n    \n", "\n\n")
    blocks.append(f"Repeat it with `{command}`.")
    blocks.append(f'??? note "More tables and the machines"\n\n    {folded}')
    return "\n\n".join(blocks)


def matching(results: dict[str, Results], patterns: str) -> dict[str, Results]:
    """Find the files whose names match one of the patterns, in the order of the patterns."""
    return {
        name: one
        for pattern in patterns.split()
        for name, one in results.items()
        if fnmatch(name, pattern)
    }


def source(name: str, results: Results) -> str:
    """Describe a file: its name, the machine, the seconds and the memory."""
    cost = []
    if isinstance(results.get("seconds"), int | float):
        cost.append(f"{seconds(results['seconds'])} in all")
    memory = results.get("memory") or {}
    kinds = (("host_mib", "memory"), ("gpu_mib", "GPU memory"))
    cost += [f"{memory[key]:,.0f} MiB of {kind}" for key, kind in kinds if key in memory]
    return f"`{name}.json`: {machine_of(results)}" + (f"; {', '.join(cost)}" if cost else "")


if __name__ == "__main__":
    sys.exit(main())
