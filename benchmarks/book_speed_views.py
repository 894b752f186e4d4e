"""The tables of docs/benchmarks.md about time, memory and throughput."""

from __future__ import annotations

from book_tables import Known, anything, number, seconds, table, timings


def speed(known: Known) -> list[str]:
    """Show a training step, rollouts and latencies, a machine at a time."""
    blocks = []
    for name, one in known.items():
        step = one["training_step"]
        entries = [(f"training step, {kind}", step[kind]) for kind in ("float32", "bfloat16")]
        for row in one["rollout_720"]:
            entries += [(f"720 steps, {row['rows']} rows, {way}", row[way])
                        for way in ("sliding", "cached")]  # fmt: skip
        entries += [(row["call"], row) for row in one["latency"]]
        ratios = ", ".join(
            f"{row['ratio']:.1f} × for {row['rows']:,}" for row in one["rollout_720"]
        )
        blocks += [
            f"### {name}",
            timings(entries),
            f"Cached against sliding, by rows at once: {ratios}.",
        ]
    return blocks


def llama_step(known: Known) -> list[str]:
    """Show a training step of a model of LLaMA-7B's shape."""
    return [
        timings([(f"an iteration of {one['batch']} windows of {one['tokens']} tokens",
                  one["seconds_per_iteration"])])
        + f"\n\n{one['parameters']:,} frozen parameters in {one['dtype']}, "
        f"{one['trained_parameters']:,} trained."
        for one in known.values()
    ]  # fmt: skip


def s2ip_speed(known: Known) -> list[str]:
    """Compare S²IP-LLM's costly parts with the published way."""
    blocks = []
    for one in known.values():
        entries = [(f"{part.replace('_', ' ')}, {way}", one[part][way])
                   for part in ("decomposition", "anchors", "training_step")
                   for way in ("published", "ours")]  # fmt: skip
        ratio = one["training_step"]["ratio"]
        blocks += [
            timings(entries),
            f"Decomposition and anchors together are {one['parts_together']:.0f} × faster, "
            f"the whole step {ratio:.1f} ×.",
        ]
    return blocks


def store(known: Known) -> list[str]:
    """Show how fast the store is filled and read."""
    blocks = []
    for one in known.values():
        encoding = one["encoding"]
        rates = [(name, encoding["prompts_per_second"][name]["p50"],
                  encoding["ratio_to_plain_float32"][name])
                 for name in encoding["prompts_per_second"]]  # fmt: skip
        second = one["second_pass"]
        blocks += [
            table(["way", "prompts a second", "ratio to one at a time, float32"], rates)
            + f"\n\nPrompts of {encoding['mean_tokens']:.0f} tokens, {one['layers']} layers, "
            f"{100 * encoding['padding']:.1f} % padding. Cosine of float32 and bfloat16 vectors: "
            f"{encoding['cosine_of_precisions']['mean']:.4f}. Native bfloat16 on this CPU: "
            f"{'yes' if one['native_bfloat16'] else 'no'}.",
            f"Read back: {number(second['encode']['p50'])} vectors a second by text, "
            f"{number(second['read']['p50'])} by key.",
            timings((f"forecast of one new window, {row['store']}", row) for row in one["latency"]),
        ]
    return blocks


def aaren_speed(known: Known) -> list[str]:
    """Show the scan against attention, in time and memory, and the cost of an update."""
    blocks = []
    for one in known.values():
        if "both_ways" in one:
            header = ["flip_invariance", "update, median", "predict, median", "bytes kept"]
            rows = [[row["flip_invariance"], seconds(row["update"]["p50"]),
                     seconds(row["predict"]["p50"]), row["bytes"]]
                    for row in one["both_ways"]]  # fmt: skip
            blocks.append(
                f"*A stream read one way and both ways, in turn*\n\n{table(header, rows)}"
            )
        if "training" not in one:
            continue
        header = ["tokens", "Aaren, ours", "Aaren, as matrix products", "attention", "ratio"]
        rows = [[row["tokens"], seconds(row["segmented"]), seconds(row["matmul"]),
                 seconds(row["attention"]) if "attention" in row else "–",
                 f"{row['attention'] / row['segmented']:.1f} ×" if "attention" in row else "–"]
                for row in one["training"]]  # fmt: skip
        blocks.append(f"*Forward and backward, processor time*\n\n{table(header, rows)}")
        rows = [[row["tokens"], row["segmented_mib"], row["matmul_mib"],
                 row.get("attention_mib"), f"{row['segmented_mib'] / row['values_mib']:.1f} ×"]
                for row in one["memory"]]  # fmt: skip
        header = ["tokens", "Aaren, MiB", "as matrix products", "attention", "Aaren to its values"]
        blocks.append(f"*Memory, MiB*\n\n{table(header, rows)}")
        blocks.append(
            "*A whole layer, seconds*\n\n"
            + table(list(one["layer"][0]), map(dict.values, one["layer"]))  # type: ignore[arg-type]
        )
        header = ["points seen", "update, median", "update, 95 %", "predict, median", "bytes kept"]
        rows = [[row["steps"], seconds(row["update"]["p50"]), seconds(row["update"]["p95"]),
                 seconds(row["predict"]["p50"]), row["bytes"]]
                for row in one["stream"]["table"]]  # fmt: skip
        blocks.append(f"*A stream*\n\n{table(header, rows)}")
    return blocks


def as_it_is(known: Known) -> list[str]:
    """Show files that need no table of their own."""
    return [block for name, one in known.items() for block in (f"### {name}", *anything(one))]
