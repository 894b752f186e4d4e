"""Seconds of an epoch of AttNHP in easy-tpp 0.3.0 and of tsllm's event models, side by side.

An epoch is a pass over the training sequences with Adam and a pass over held-out sequences without
gradients, with the data loading of each package. Both have the same data, batches, hidden size,
heads, layers and quadrature points (20 equally spaced ones there, 20 of Gauss-Legendre here). In
easy-tpp each head is as wide as the hidden size; ``attnhp_wide`` is tsllm's decoder with heads of
that width, twice the hidden size.

easy-tpp is not a dependency. Install it into a folder of its own, and name it:

    pip install --no-deps --target /tmp/easytpp easy-tpp==0.3.0 omegaconf \
        antlr4-python3-runtime==4.9.3 tensorboard
    python benchmarks/speed/easytpp.py --easytpp /tmp/easytpp
"""

from __future__ import annotations

import logging
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tsllm.adapters.events.prompttpp import PromptTPPModel
from tsllm.datasets.events import EventTable, read_events
from tsllm.events.batching import EventWindows
from tsllm.training.loop import TrainingRun
from tsllm.training.settings import Loss, TrainingSettings

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, parser, spread, write

HIDDEN, HEADS, LAYERS, POINTS, TYPES, RATE = 32, 2, 2, 20, 10, 1e-3
#: Ours: decoder, prompts and width.
MODELS = {
    "attnhp": ("attnhp", "none", HIDDEN),
    "attnhp_wide": ("attnhp", "none", HEADS * HIDDEN),
    "attnhp_with_prompts": ("attnhp", "allocate", HIDDEN),
    "default": ("lognormal_mixture", "allocate", HIDDEN),
    "default_without_prompts": ("lognormal_mixture", "none", HIDDEN),
}
Records = list[dict[str, Any]]


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--easytpp", required=True, help="folder that easy-tpp is installed in")
    arguments.add_argument("--sequences", type=int, default=64, help="half as many are held out")
    arguments.add_argument("--events", type=int, nargs="+", default=[16], help="a sequence")
    arguments.add_argument("--batch", type=int, default=16, help="sequences a step")
    arguments.add_argument("--repeats", type=int, default=7, help="epochs timed")
    args = arguments.parse_args()
    sys.path.append(args.easytpp)
    logging.disable(logging.WARNING)  # easy-tpp logs each configuration
    torch.set_num_threads(1)
    found = distributions(path=[args.easytpp], name="easy-tpp")
    results: dict[str, Any] = {
        "easytpp": next(iter(found)).version,
        "sequences": args.sequences,
        "batch": args.batch,
        "hidden": HIDDEN,
        "heads": HEADS,
        "layers": LAYERS,
        "points": POINTS,
        "types": TYPES,
    }
    for events in args.events:
        results[f"events_{events}"] = measure(args.sequences, events, args.batch, args.repeats)
    write(f"easytpp_speed{args.tag}", results, args.out)


def measure(sequences: int, events: int, batch: int, repeats: int) -> dict[str, Any]:
    """Time an epoch of each model in turn, in seconds of the processor."""
    rng = np.random.default_rng(0)
    training, held_out = make_records(rng, sequences, events), make_records(rng, sequences, events)
    held_out = held_out[: max(1, sequences // 2)]
    epochs = {"easytpp": easytpp_epoch(training, held_out, batch)}
    for name, (decoder, prompts, hidden) in MODELS.items():
        epochs[name] = own_epoch(decoder, prompts, hidden, training, held_out, batch)
    seconds = in_turn(epochs, repeats, busy=True)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        ratio = median["easytpp"] / value
        print(f"{events} events, {name:24s} {1e3 * value:9.1f} ms an epoch, {ratio:6.1f} x")
    return {
        "seconds_per_epoch": {name: spread(values) for name, values in seconds.items()},
        "times_faster_than_easytpp": {n: median["easytpp"] / v for n, v in median.items()},
    }


def make_records(rng: np.random.Generator, sequences: int, events: int) -> Records:
    """Make sequences of exponential gaps and random types in EasyTPP's format."""
    records = []
    for number in range(sequences):
        gaps = np.append(0.0, rng.exponential(size=events - 1))
        records.append(
            {
                "seq_idx": number,
                "dim_process": TYPES,
                "time_since_start": gaps.cumsum().tolist(),
                "time_since_last_event": gaps.tolist(),
                "type_event": rng.integers(0, TYPES, events).tolist(),
            }
        )
    return records


def easytpp_epoch(training: Records, held_out: Records, batch: int) -> Callable[[], None]:
    """Make an epoch of easy-tpp's AttNHP, as its runner makes it."""
    from easy_tpp.config_factory import BaseConfig, DataSpecConfig, ModelConfig
    from easy_tpp.config_factory.model_config import TrainerConfig
    from easy_tpp.model.attnhp import AttNHP
    from easy_tpp.model_wrapper import ModelWrapper
    from easy_tpp.preprocess import EventTokenizer, TPPDataset, get_data_loader
    from easy_tpp.utils import RunnerPhase

    model = ModelConfig(
        model_id="AttNHP",
        hidden_size=HIDDEN,
        num_heads=HEADS,
        num_layers=LAYERS,
        loss_integral_num_sample_per_step=POINTS,
        num_event_types=TYPES,
        num_event_types_pad=TYPES + 1,
        event_pad_index=TYPES,
        training=True,
    )
    torch.manual_seed(0)
    wrapper = ModelWrapper(
        AttNHP(model),
        BaseConfig(backend="torch", model_id="AttNHP"),
        model,
        TrainerConfig(batch_size=batch, learning_rate=RATE),
    )
    tokenizer = EventTokenizer(
        DataSpecConfig(
            num_event_types=TYPES,
            pad_token_id=TYPES,
            padding_side="right",
            truncation_side="right",
        )
    )

    def loader(records: Records, *, shuffle: bool) -> Any:
        names = {"time_seqs": "time_since_start", "time_delta_seqs": "time_since_last_event"}
        names["type_seqs"] = "type_event"
        data = {own: [record[name] for record in records] for own, name in names.items()}
        dataset = TPPDataset(data)
        return get_data_loader(dataset, "torch", tokenizer, batch_size=batch, shuffle=shuffle)

    train, validate = loader(training, shuffle=True), loader(held_out, shuffle=False)

    def epoch() -> None:
        for one in train:
            wrapper.run_batch(one, RunnerPhase.TRAIN)
        for one in validate:
            wrapper.run_batch(one, RunnerPhase.VALIDATE)

    return epoch


def own_epoch(
    decoder: str, prompts: str, hidden: int, training: Records, held_out: Records, batch: int
) -> Callable[[], None]:
    """Make an epoch of tsllm's training loop."""
    torch.manual_seed(0)
    model = PromptTPPModel(
        TYPES, decoder=decoder, hidden=hidden, heads=HEADS, layers=LAYERS, prompt_mode=prompts
    )
    if decoder == "attnhp":
        model.decoder.quad_nodes = model.decoder.score_nodes = POINTS
    rows, held = _rows(read_events(training)), _rows(read_events(held_out))
    slots = model.open_slots(model.slice_queries([rows.gather(range(min(batch, len(rows))))]))
    model.train_only(base=True, slots=slots)
    settings = TrainingSettings(
        max_epochs=1_000_000, batch_size=batch, learning_rate=RATE, patience=1_000_000, fused=True
    )
    run = TrainingRun(model, lambda _, one: Loss(*model.loss(one, slots)), rows, held, settings)
    run.prepare()

    def epoch() -> None:
        run.take_step()
        while not run.at_end_of_epoch:
            run.take_step()
        run.finish_epoch()

    return epoch


def _rows(table: EventTable) -> EventWindows:
    return EventWindows(table, [str(number) for number in range(TYPES)], 1.0, length=128)


if __name__ == "__main__":
    main()
