"""Seconds of a training step of AttNHP, as published code computes it and as tsllm does.

Three comparisons: the same likelihood (20 equally spaced times an interval) both ways, whose
numbers and gradients must agree; tsllm's default (16 Gauss-Legendre nodes, which is exact where the
20 times are wrong by percents); and the log-normal mixture, the default decoder.

    python benchmarks/speed/attnhp.py
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from attnhp_reference import RepeatedAttNHP, mean_likelihood
from torch import Tensor, nn

from tsllm.adapters.events.batch import EventBatch, pad_sequences
from tsllm.adapters.events.decoders.attnhp import AttNHPDecoder, AttNHPEncoder
from tsllm.adapters.events.decoders.base import log_likelihood
from tsllm.adapters.events.decoders.closed_form import LogNormalMixtureDecoder
from tsllm.adapters.events.encoders.attention import AttentionEncoder
from tsllm.adapters.events.features import EventEmbedding

sys.path.append(str(Path(__file__).parents[1]))
from measuring import in_turn, parser, spread, synchronize, write

#: The published configuration: 2 heads of width 32, 16 for the time, 2 layers, 20 points.
HIDDEN, HEADS, TIME_WIDTH, LAYERS, TYPES, POINTS = 64, 2, 16, 2, 16, 20


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--batch", type=int, default=16, help="sequences a step")
    arguments.add_argument(
        "--events", type=int, nargs="+", default=[50, 100], help="events a sequence"
    )
    arguments.add_argument("--repeats", type=int, default=9, help="steps timed")
    args = arguments.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.type == "cpu":
        torch.set_num_threads(1)
    results: dict[str, Any] = {
        "batch": args.batch,
        "types": TYPES,
        "hidden": HIDDEN,
        "heads": HEADS,
        "layers": LAYERS,
        "points": POINTS,
    }
    for events in args.events:
        results[f"events_{events}"] = measure(args.batch, events, args.repeats, device)
    write(f"attnhp_speed{args.tag}", results, args.out)


def measure(size: int, events: int, repeats: int, device: torch.device) -> dict[str, Any]:
    """Time the training steps in turn, after a check that the two ways agree."""
    torch.manual_seed(0)
    batch = random_batch(size, events).to(device)
    encoder = AttNHPEncoder(_embedding(), layers=LAYERS, heads=HEADS, time_width=TIME_WIDTH)
    decoder = AttNHPDecoder(HIDDEN, TYPES)
    published = RepeatedAttNHP(
        _embedding(), TYPES, layers=LAYERS, heads=HEADS, time_width=TIME_WIDTH, rates=encoder.rates
    )
    published.copy_into(encoder, decoder)
    ours = nn.ModuleList([encoder, decoder]).to(device)
    published.to(device)
    attention, mixture = AttentionEncoder(_embedding()), LogNormalMixtureDecoder(HIDDEN, TYPES)
    plain = nn.ModuleList([attention, mixture]).to(device)

    agreement = compare(published, encoder, decoder, batch)
    calls: dict[str, tuple[nn.Module, Callable[[], Tensor]]] = {
        "published": (published, lambda: published.log_likelihood(batch, POINTS)),
        "same_likelihood": (ours, lambda: cached_mean(encoder, decoder, batch)),
        "default_quadrature": (
            ours,
            lambda: log_likelihood(decoder, encoder.encode(batch), batch),
        ),
        "lognormal_mixture": (
            plain,
            lambda: log_likelihood(mixture, attention.encode(batch), batch),
        ),
    }
    steps = {name: training_step(module, call) for name, (module, call) in calls.items()}
    seconds = in_turn(steps, repeats)
    median = {name: statistics.median(values) for name, values in seconds.items()}
    for name, value in median.items():
        ratio = median["published"] / value
        print(f"{events} events, {name:20s} {1e3 * value:9.1f} ms a step, {ratio:6.1f} x")
    result: dict[str, Any] = {
        "seconds_per_step": {name: spread(values) for name, values in seconds.items()},
        "times_faster_than_published": {
            name: median["published"] / value for name, value in median.items()
        },
        "agreement": agreement,
    }
    if device.type == "cuda":
        result["gpu_peak_mib"] = {name: _peak_mib(step) for name, step in steps.items()}
    return result


def random_batch(size: int, events: int) -> EventBatch:
    """Make sequences of exponential gaps and random types, all of one length, nothing padded."""
    generator = np.random.default_rng(0)
    return pad_sequences(
        list(generator.exponential(size=(size, events))),
        list(generator.integers(0, TYPES, (size, events))),
        first_known=np.ones(size, bool),
        tails=np.ones(size),
    )


def cached_mean(encoder: AttNHPEncoder, decoder: AttNHPDecoder, batch: EventBatch) -> Tensor:
    """Return the published likelihood with cached keys, (batch, positions)."""
    fractions = torch.linspace(0, 1, POINTS, device=batch.elapsed.device)
    times = torch.cat([batch.elapsed[..., None], batch.elapsed[..., None] * fractions], -1)
    values = decoder.log_intensities(encoder.encode(batch), times).exp()
    return mean_likelihood(batch, values[:, :, 0], values[:, :, 1:])


def compare(
    published: RepeatedAttNHP, encoder: AttNHPEncoder, decoder: AttNHPDecoder, batch: EventBatch
) -> dict[str, float]:
    """Return the differences of likelihoods and gradients; raise if they are large."""
    both, gradients = [], []
    for module, call in (
        (published.embedding, lambda: published.log_likelihood(batch, POINTS)),
        (encoder.embedding, lambda: cached_mean(encoder, decoder, batch)),
    ):
        values = call()
        values.sum().backward()
        both.append(values.detach())
        gradients.append(module.types.grad.clone())
    difference = float((both[0] - both[1]).abs().max())
    largest = float(gradients[0].abs().max())
    gradient = float((gradients[0] - gradients[1]).abs().max()) / largest
    if difference > 1e-4 or gradient > 1e-3:
        raise AssertionError(f"the two ways differ by {difference}, in the gradient by {gradient}")
    return {"largest_difference_nats": difference, "largest_gradient_difference": gradient}


def training_step(module: nn.Module, call: Callable[[], Tensor]) -> Callable[[], None]:
    """Make a step of Adam on minus the mean of the values of ``call``."""
    optimiser = torch.optim.Adam(module.parameters(), lr=1e-4)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        (-call().mean()).backward()
        optimiser.step()

    return step


def _embedding() -> EventEmbedding:
    return EventEmbedding(TYPES, HIDDEN)


def _peak_mib(step: Callable[[], None]) -> float:
    synchronize()
    torch.cuda.reset_peak_memory_stats()
    step()
    return torch.cuda.max_memory_allocated() / 2**20


if __name__ == "__main__":
    main()
