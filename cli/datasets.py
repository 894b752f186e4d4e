"""``tsllm datasets``: the list of data sets."""

from typing import Any

from tsllm.cli import options
from tsllm.cli.output import print_json, print_table, say


def datasets(json: options.Json = False) -> None:
    """List the data sets that DATA may name, with licence, size and place."""
    from tsllm.datasets import describe_benchmarks, list_datasets

    bundled = list_datasets().assign(found="bundled").to_dict("records")
    benchmarks = describe_benchmarks().to_dict("records")
    rows: list[dict[str, Any]] = [
        {str(name): None if value != value else value for name, value in row.items()}
        for row in [*bundled, *benchmarks]
    ]
    if json:
        print_json(rows)
        return
    for row in rows:
        row["found"] = row["found"] or "not here"
    print_table(rows)
    if any(row["found"] == "not here" for row in rows):
        say("missing ones are downloaded at their first use, or read from the folder TSLLM_DATA")
