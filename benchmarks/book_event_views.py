"""The tables of docs/benchmarks.md about event streams."""

from __future__ import annotations

from book_tables import Known, Results, error, mean_and_sd, seconds, table, timings


def drift(known: Known) -> list[str]:
    """Show what is forgotten under drift, over seeds."""
    header = [
        "variant",
        "seeds",
        "final log-likelihood",
        "forgetting",
        "final type error",
        "training",
    ]
    blocks = []
    for one in known.values():
        rows = []
        for arm in dict.fromkeys(row["variant"] for row in one["rows"]):
            mine = [row for row in one["rows"] if row["variant"] == arm]
            cells = [_over_seeds(mine, key) for key in _DRIFT]
            rows.append([arm, len(mine), *cells, seconds(_mean(mine, "seconds"))])
        true = _mean(one["rows"], "true_log_likelihood")
        each = "; ".join(
            f"{arm}: " + ", ".join(
                f"{row['forgetting_log_likelihood']:.3f} (seed {row['seed']})"
                for row in one["rows"] if row["variant"] == arm
            )
            for arm in dict.fromkeys(row["variant"] for row in one["rows"])
            if any(
                "forgetting_log_likelihood" in row for row in one["rows"] if row["variant"] == arm
            )
        )  # fmt: skip
        blocks += [
            table(header, rows),
            f"The true model's log-likelihood is {true:.3f}. Forgetting by seed: {each}.",
        ]
    return blocks


_DRIFT = ("final_log_likelihood", "forgetting_log_likelihood", "final_type_error")


def event_streams(known: Known) -> list[str]:
    """Show one fit per arm (the file's own split), or the report of slices."""
    blocks = []
    for name, one in known.items():
        if "reports" in one:
            blocks += slice_reports(name, one)
            continue
        rows, guesses = [], {}
        for row in one["rows"]:
            for who, scores in row["test"]["table"].items():
                mine = who == next(iter(row["test"]["table"]))
                cells = [scores[key] for key in _EVENT_SCORES]
                if mine:
                    rows.append([row["variant"], row["seed"], *cells, seconds(row["fit_seconds"])])
                else:
                    guesses[who] = [who, "", *cells, ""]
        header = ["variant", "seed", *(key.replace("_", " ") for key in _EVENT_SCORES), "training"]
        blocks.append(
            f"*{name}: times in {one['time_unit']}, ticks {one['ticks']}*\n\n"
            + table(header, [*rows, *guesses.values()])
        )
    return blocks


def slice_reports(name: str, one: Results) -> list[str]:
    """Show what each arm knew of a stream's slices, a table a metric; means over the seeds."""
    summaries = [row for report in one["reports"] for row in report["summary"]]
    columns = [key for key in summaries[0] if key not in ("variant", "metric")]
    seeds = len(one["reports"])
    blocks = [f"*{name}: {one['slices']} slices, {seeds} seed{'s' * (seeds > 1)}, times in "
              f"{one['time_unit']}*"]  # fmt: skip
    for metric in dict.fromkeys(row["metric"] for row in summaries):
        rows = []
        for arm in dict.fromkeys(row["variant"] for row in summaries):
            mine = [row for row in summaries if (row["variant"], row["metric"]) == (arm, metric)]
            spent = [sum(report["seconds"][arm]) for report in one["reports"]]
            cells = [_over_seeds(mine, key) for key in columns]
            rows.append([arm, *cells, seconds(sum(spent) / len(spent))])
        header = [metric.replace("_", " "), *(key.replace("_", " ") for key in columns), "training"]
        blocks.append(table(header, rows))
    guesses = one["reports"][0]["guesses"]
    scores = _EVENT_SCORES[1:]
    blocks.append(
        table(
            ["guess", *(key.replace("_", " ") for key in scores)],
            [[guess, *(found.get(key) for key in scores)] for guess, found in guesses.items()],
        )
    )
    return [*blocks, *(f"Note: {note}." for note in one["reports"][0]["notes"])]


def event_text(known: Known) -> list[str]:
    """Show what the types' texts are worth, a table a set."""
    blocks = []
    for one in known.values():
        for set_name in dict.fromkeys(row["set"] for row in one["rows"]):
            rows = [row for row in one["rows"] if row["set"] == set_name]
            body = []
            for arm in dict.fromkeys(row["variant"] for row in rows):
                mine = [row for row in rows if row["variant"] == arm]
                cells = [_over_seeds(mine, key) for key in _EVENT_SCORES]
                body.append([arm, len(mine), *cells, seconds(_mean(mine, "seconds"))])
            header = [
                "variant",
                "seeds",
                *(key.replace("_", " ") for key in _EVENT_SCORES),
                "training",
            ]
            true = rows[0].get("true_log_likelihood")
            known_truth = true is not None and true == true
            truth = f" The true model's log-likelihood is {true:.3f}." if known_truth else ""
            blocks.append(
                f"*{set_name}: {rows[0]['train_events']:,} events to train on.{truth}*\n\n"
                + table(header, body)
            )
    return blocks


_EVENT_SCORES = ("log_likelihood", "type_error", "time_rmse", "time_mae")


def attnhp(known: Known) -> list[str]:
    """Show a training step of AttNHP four ways."""
    blocks = []
    for one in known.values():
        for size in (key for key in one if key.startswith("events_")):
            part = one[size]
            faster = ", ".join(
                f"{name.replace('_', ' ')} {ratio:.1f} ×"
                for name, ratio in part["times_faster_than_published"].items()
            )
            named = [(way.replace("_", " "), found)
                     for way, found in part["seconds_per_step"].items()]  # fmt: skip
            blocks.append(
                f"*{size.removeprefix('events_')} events a sequence*\n\n{timings(named)}\n\n"
                f"Faster than published: {faster}. Largest difference of the same likelihood: "
                f"{part['agreement']['largest_difference_nats']:.1e} nats."
            )
    return blocks


def update_latency(known: Known) -> list[str]:
    """Show what an update costs as a stream grows."""
    header = ["events seen", "update, median", "update, 95 %", "an event in bulk", "memory, MiB"]
    return [
        table(
            header,
            [
                [
                    row["events"],
                    seconds(row["update_seconds"]["p50"]),
                    seconds(row["update_seconds"]["p95"]),
                    seconds(row["bulk_seconds_per_event"]),
                    row["host_mib"],
                ]
                for row in one["rows"]
            ],
        )
        + f"\n\nLast median over first: {one['last_over_first']:.2f}."
        for one in known.values()
    ]


def _mean(rows: list[Results], key: str) -> float:
    return mean_and_sd([row[key] for row in rows])[0]


def _over_seeds(rows: list[Results], key: str) -> str:
    values = [row[key] for row in rows if key in row]
    return error(*mean_and_sd(values)) if values else "–"
