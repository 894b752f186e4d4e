"""Write docs/benchmarks.md from the JSON files of benchmarks/results.

The words are those of benchmarks/book.md, the figures are read from the files; a file that no
section names is listed near the end, as it is. Needs nothing but Python.

    python benchmarks/book.py           # writes the page
    python benchmarks/book.py --check   # fails where the committed page is another
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

import book_event_views
import book_forecast_views
import book_speed_views
from book_tables import Known, Results, anything, machine_of, seconds

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "benchmarks" / "book.md"
PAGE = ROOT / "docs" / "benchmarks.md"
RESULTS = ROOT / "benchmarks" / "results"
_DIRECTIVE = re.compile(r"\{\{ (\w+)(?:: ([^;]+); (\S+))? \}\}")


def main() -> int:
    """Write the page, or compare it."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--check", action="store_true", help="only compare")
    text = page(TEMPLATE.read_text(encoding="utf-8"), read_results(RESULTS))
    if arguments.parse_args().check:
        if PAGE.exists() and PAGE.read_text(encoding="utf-8") == text:
            return 0
        print("docs/benchmarks.md is not what the results make: run make benchmarks-page")
        return 1
    PAGE.write_text(text, encoding="utf-8")
    print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0


def read_results(folder: Path) -> Known:
    """Read every JSON file of a folder, by its name without the ending."""
    return {
        path.stem: json.loads(path.read_text(encoding="utf-8"))
        for path in sorted(folder.glob("*.json"))
    }


def page(template: str, results: Known) -> str:
    """Fill the template: each ``{{ view: files; script }}`` with the tables of its files."""
    left = dict(results)
    parts = []
    for section in re.split(r"^(?=## )", template, flags=re.MULTILINE):
        directive = _DIRECTIVE.search(section)
        if directive is None:
            parts.append(section)
            continue
        view, patterns, script = directive.groups()
        if view == "rest":
            known, left = left, {}
            text = "\n\n".join(
                "\n\n".join([f"### {name}", *anything(one), source(name, one)])
                for name, one in known.items()
            )
        else:
            known = matching(results, patterns)
            twice = sorted(known.keys() - left.keys())
            if twice:  # the later section would be left out without a word
                raise SystemExit(f"benchmarks/book.md shows {twice[0]}.json in two sections")
            left = {name: one for name, one in left.items() if name not in known}
            text = "\n\n".join([*view_named(view)(known), measured_on(script, known)])
        if known:  # a benchmark that was not run has no section
            parts.append(section.replace(directive.group(), text))
    return "".join(parts)


def matching(results: Known, patterns: str) -> Known:
    """Pick the files whose names match one of the patterns, which spaces part."""
    wanted = patterns.split()
    return {
        name: one
        for name, one in results.items()
        if any(fnmatch(name, pattern) for pattern in wanted)
    }


def view_named(name: str) -> Callable[[Known], list[str]]:
    """Find the function that a directive names."""
    for module in (book_forecast_views, book_speed_views, book_event_views):
        if hasattr(module, name):
            view: Callable[[Known], list[str]] = getattr(module, name)
            return view
    raise SystemExit(f"benchmarks/book.md names the view {name!r}, which there is not")


def measured_on(script: str, known: Known) -> str:
    """Say how to repeat a section's figures, and where they come from."""
    sources = "\n".join(f"- {source(name, one)}" for name, one in known.items())
    return f"Repeat it with `{script}`. Measured on:\n\n{sources}"


def source(name: str, results: Results) -> str:
    """Say which file figures come from, what they were measured on and what they cost."""
    cost = []
    if "seconds" in results and isinstance(results["seconds"], int | float):
        cost.append(f"{seconds(results['seconds'])} in all")
    memory = results.get("memory") or {}
    cost += [f"{memory[key]:,.0f} MiB of {kind}" for key, kind in _MEMORY if key in memory]
    return f"`{name}.json`: {machine_of(results)}" + (f"; {', '.join(cost)}" if cost else "")


_MEMORY = (("host_mib", "memory"), ("gpu_mib", "GPU memory"))


if __name__ == "__main__":
    sys.exit(main())
