"""The model of events without training: causal, blind to the names of types, and a density."""

import numpy as np
import pytest
import torch

from tsllm.adapters.events.batch import EventStates, pad_sequences
from tsllm.adapters.events.zero_shot.cycles import cyclic
from tsllm.adapters.events.zero_shot.estimates import estimate
from tsllm.adapters.events.zero_shot.excitation import TIES, excited, poisson
from tsllm.adapters.events.zero_shot.history import DECAYS, read_history
from tsllm.adapters.events.zero_shot.model import ZeroShotDecoder, ZeroShotEventModel
from tsllm.datasets.events import make_hawkes, make_poisson

LENGTHS = (40, 25, 0)


def batch_of(gaps, types, first_known=True):
    return pad_sequences(
        gaps, types, first_known=[first_known] * len(gaps), tails=[np.nan] * len(gaps)
    )


@pytest.fixture(scope="module")
def streams():
    rng = np.random.default_rng(0)
    gaps = [rng.exponential(size=n) + 1e-3 for n in LENGTHS]
    return gaps, [rng.integers(0, 3, n) for n in LENGTHS]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    model = ZeroShotEventModel(width=8, blocks=1).eval().requires_grad_(False)
    model.last.weight.normal_()  # far from the weights that training starts from
    return model


def test_a_position_knows_no_later_event_and_no_other_stream(model, streams):
    gaps, types = streams
    together = model.encode(batch_of(gaps, types), 3).hidden
    for row, length in enumerate(LENGTHS):
        for cut in {length // 2, length}:
            alone = batch_of([gaps[row][:cut]], [types[row][:cut]])
            hidden = model.encode(alone, 3).hidden[0]
            torch.testing.assert_close(hidden, together[row, : cut + 1], rtol=1e-3, atol=1e-4)


def test_names_of_types_do_not_matter(model, streams):
    gaps, types = streams
    decoder, order = ZeroShotDecoder(3), np.array([2, 0, 1])
    elapsed = torch.tensor([0.2, 3.0]).expand(3, 41, 2)
    found = decoder.log_intensities(model.encode(batch_of(gaps, types), 3), elapsed)
    renamed = model.encode(batch_of(gaps, [order[one] for one in types]), 3)
    torch.testing.assert_close(
        decoder.log_intensities(renamed, elapsed)[..., order], found, rtol=1e-3, atol=1e-3
    )


@pytest.mark.parametrize("first_known", [True, False])
def test_densities_have_mass_one_and_agree_with_the_survival(model, streams, first_known):
    batch = batch_of(*streams, first_known)
    states, decoder = model.encode(batch, 3), ZeroShotDecoder(3)
    picked = EventStates(states.hidden[:2, [0, 1, 20]])
    grid = torch.logspace(-6, 4, 20001).expand(2, 3, -1)
    density = sum(
        decoder.log_density(picked, grid, torch.full((2, 3), kind)).exp() for kind in range(3)
    )
    mass = torch.cumulative_trapezoid(density, grid)
    survival = decoder.log_survival(picked, grid).exp()
    torch.testing.assert_close(mass, 1 - survival[..., 1:], rtol=0, atol=3e-3)


@pytest.mark.parametrize("ties", TIES)
def test_the_estimated_hawkes_process_comes_near_the_truth(ties):
    events = make_hawkes([0.4], [[0.6]], [1.2], t_end=480, random_state=3).events
    gaps = np.diff(events.times[0], prepend=0.0)
    history = read_history(batch_of([gaps], [np.zeros(len(gaps), int)]), 1)
    base, risen = excited(history, ties)
    caused = risen[0, -1, 0] / history.after[0, -1, 0] / torch.tensor(DECAYS)
    assert 0.25 < float(base[0, -1, 0]) < 0.55
    assert 0.4 < float(caused.sum()) < 0.75


def test_a_cycle_is_found():
    daily = make_poisson(
        lambda time: 1 + 0.9 * np.sin(2 * np.pi * time / 24), bound=2, t_end=240, random_state=0
    ).events
    gaps = np.diff(daily.times[0], prepend=0.0)
    history = read_history(batch_of([gaps], [np.zeros(len(gaps), int)]), 1)
    cycle = cyclic(history, poisson(history))
    assert 2 * np.pi / float(cycle.angular[0, -1]) == pytest.approx(24, rel=0.05)
    depth = torch.hypot(cycle.cosine[0, -1, 0, 0], cycle.sine[0, -1, 0, 0])
    assert float(depth) == pytest.approx(0.9, abs=0.25)


def test_equal_and_extreme_times_stay_finite(model):
    gaps = [[1e-9, 1e-9, 1e7, 1e-3, 1e-3], [1.0] * 5]
    batch = batch_of(gaps, [[0] * 5, [0] * 5])
    hidden = model.encode(batch, 1).hidden
    assert bool(hidden.isfinite().all())
    found = ZeroShotDecoder(1).log_density(
        EventStates(hidden[:, :-1]), batch.gaps[..., None], batch.types
    )
    assert bool(found.isfinite().all())
    assert bool((estimate(read_history(batch, 1)).spread > 0).all())
