"""Texts that repeat: embedding all of them against embedding each distinct sentence once.

A quarter of the texts is distinct; the others repeat them, as weather reports do.

    python benchmarks/speed/texts.py --texts 50000
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tsllm import load_backbone
from tsllm.embeddings import EmbeddingStore
from tsllm.text import LanguageModelEncoder

sys.path.append(str(Path(__file__).parents[1]))
from measuring import machine, parser, peak_memory_mib, write

WORDS = (
    *("rain", "snow", "fog", "wind", "calm", "cloud", "sun", "storm", "north", "south", "east"),
    *("west", "light", "heavy", "morning", "evening", "rising", "falling", "steady", "cold"),
    *("warm", "mild", "humid", "dry", "pressure", "temperature", "expected", "later"),
)
#: Each distinct text stands this number of times.
REPEATS = 4


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--texts", type=int, default=50_000)
    args = arguments.parse_args()
    print(machine())
    backbone = load_backbone(args.backbone, dtype="float32")
    rng = np.random.default_rng(0)
    distinct = sentences(args.texts // REPEATS, rng)
    repeated = [distinct[i] for i in rng.permutation(np.tile(np.arange(len(distinct)), REPEATS))]
    with tempfile.TemporaryDirectory() as folder:
        seconds, busy = {}, {}
        for name, texts in (("distinct", distinct), ("repeated", repeated)):
            encoder = LanguageModelEncoder(backbone, "mean", EmbeddingStore(Path(folder) / name))
            seconds[name], busy[name] = run(encoder, texts)
        # The stored vectors are read by another call, as by the next fit.
        seconds["repeated again"], busy["repeated again"] = run(encoder, repeated)
    results = {
        "backbone": args.backbone,
        "texts": len(repeated),
        "distinct": len(distinct),
        "seconds": seconds,
        "seconds_of_the_processor": busy,
        "repeats_cost": busy["repeated"] / busy["distinct"] - 1,
        "memory": peak_memory_mib(),
    }
    write("texts_speed" + args.tag, results, args.out)


def sentences(count: int, rng: np.random.Generator) -> list[str]:
    """Make distinct sentences of eight words and a number."""
    words = rng.choice(WORDS, (count, 8))
    return [f"{' '.join(row)} at {number}." for number, row in enumerate(words)]


def run(encoder: LanguageModelEncoder, texts: list[str]) -> tuple[float, float]:
    """Encode texts; return the seconds of the clock and of the processor."""
    wall, own = time.perf_counter(), time.process_time()
    encoder.encode(texts)
    return time.perf_counter() - wall, time.process_time() - own


if __name__ == "__main__":
    main()
