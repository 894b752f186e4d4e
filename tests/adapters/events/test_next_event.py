"""The next event's distribution, and draws from it, against theory and against each other."""

import math

import numpy as np
import pytest
import torch
from scipy import stats
from thinning import sample_by_thinning

from tsllm.adapters.events.batch import EventStates, pad_sequences
from tsllm.adapters.events.decoders.base import EventDecoder
from tsllm.adapters.events.decoders.closed_form import (
    ExponentialDecoder,
    LogNormalMixtureDecoder,
    RMTPPDecoder,
)
from tsllm.adapters.events.hawkes import HawkesProcess
from tsllm.adapters.events.next_event import next_event, sample_next
from tsllm.adapters.events.survival_table import SurvivalTable

HIDDEN, TYPES = 6, 3


def gold():
    """The Hawkes process of the gold values, after its event at 4."""
    process = HawkesProcess(
        2, mu=[0.5, 0.3], alpha=[[0.3, 0.1], [0.2, 0.4]], beta=[2.0, 1.5]
    ).eval()
    times = np.array([0.3, 0.7, 1.2, 2.5, 2.6, 4.0])
    batch = pad_sequences(
        [np.diff(times, prepend=0.0)],
        [[0, 1, 0, 1, 1, 0]],
        first_known=[True],
        tails=[1.0],
        dtype=torch.float64,
    )
    return process, process.encode(batch).at(batch.lengths)


class ConstantRate(EventDecoder):
    """Events of one type at a constant rate."""

    def __init__(self, rate):
        super().__init__(1)
        self.rate = rate

    def log_intensities(self, states, elapsed):
        return torch.full_like(elapsed, math.log(self.rate))[..., None]


class Step(EventDecoder):
    """Little at first, and much from 0.01 on."""

    def __init__(self):
        super().__init__(1)

    def log_intensities(self, states, elapsed):
        return torch.where(elapsed < 0.01, 0.2, 2.0).to(elapsed).log()[..., None]


class Spike(EventDecoder):
    """Hardly ever anything, but for a spike of intensity at one time."""

    def __init__(self, at=0.533, width=0.01, height=100.0):
        super().__init__(1)
        self.at, self.width, self.height = at, width, height

    def log_intensities(self, states, elapsed):
        inside = (elapsed - self.at).abs() < self.width / 2
        return torch.where(inside, self.height, 0.1).log()[..., None]


def states_of(decoder_hidden=HIDDEN, batch=1, positions=1, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (batch, positions, decoder_hidden)
    return EventStates(torch.randn(shape, generator=generator, dtype=torch.float64))


def build(name):
    torch.manual_seed(4)
    if name == "mixture":
        return LogNormalMixtureDecoder(HIDDEN, TYPES, components=4).double().eval()
    if name == "exponential":
        return ExponentialDecoder(HIDDEN, TYPES).double().eval()
    decoder = RMTPPDecoder(HIDDEN, TYPES).double().eval()
    torch.nn.init.constant_(decoder.rate, -0.5 if name == "rmtpp falling" else 0.4)
    torch.nn.init.zeros_(decoder.level_head.bias)
    return decoder


NAMES = ["mixture", "exponential", "rmtpp", "rmtpp falling"]


def repeated(states, count):
    zeros = torch.zeros(count, dtype=torch.int64)
    return states.select(zeros, zeros)


def uniforms(count, seed=0):
    return torch.rand(count, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def generators(count, seed=0):
    return [torch.Generator().manual_seed(1000 * seed + i) for i in range(count)]


# ------------------------------------------------------------------------------ distributions


def test_gold_1_after_the_last_event():
    process, states = gold()
    found = next_event(process, states, waited=torch.zeros(1))
    assert found.mean.item() == pytest.approx(0.8374454348, abs=1e-10)
    assert found.type_probabilities[0, 0].item() == pytest.approx(0.5974510627, abs=1e-10)
    assert found.type_probabilities.sum().item() == pytest.approx(1)
    assert found.no_event.item() == 0


@pytest.mark.parametrize("waited", [0.0, 0.9])
@pytest.mark.parametrize("name", NAMES)
def test_the_distribution_is_that_of_the_density(name, waited):
    """All of it again, from densities on a fine grid of our own."""
    decoder, states = build(name), states_of()
    wait = torch.tensor([waited]).double()
    levels = (0.1, 0.4)
    found = next_event(decoder, states, waited=wait, levels=levels)
    x, w = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-30, 45, 4001)
    logs = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    times = torch.from_numpy(waited + np.exp(logs))[None, None]
    weights = torch.from_numpy((np.diff(edges)[:, None] * w / 2).ravel() * np.exp(logs))
    with torch.no_grad():
        past = decoder.log_survival(states, wait[None, None]).item() if waited else 0.0
        masses = [
            weights * (decoder.log_density(states, times, torch.full((1, 1), k))[0, 0] - past).exp()
            for k in range(TYPES)
        ]
    ground = sum(masses)
    comes = ground.sum().item()
    assert found.no_event.item() == pytest.approx(1 - comes, abs=1e-6)
    mean = (ground * times[0, 0]).sum().item() / comes
    assert found.mean.item() == pytest.approx(mean, rel=1e-6)
    shares = [one.sum().item() / comes for one in masses]
    assert found.type_probabilities[0].tolist() == pytest.approx(shares, abs=1e-6)
    reached = ground.cumsum(0)
    middle = np.interp(0.5 * comes, reached, times[0, 0])  # of the events that come
    assert found.median.item() == pytest.approx(middle, rel=0.02, abs=1e-4)
    for value, level in zip(found.quantiles.T, levels, strict=True):
        if level < comes:
            assert value.item() == pytest.approx(
                np.interp(level, reached, times[0, 0]), rel=0.02, abs=1e-4
            )
        else:
            assert value.item() == math.inf


@pytest.mark.parametrize("name", NAMES)
def test_a_horizon_is_a_condition(name):
    decoder, states = build(name), states_of()
    wait, horizon = torch.tensor([0.2], dtype=torch.float64), 1.3
    levels = [0.05, 0.99999]
    found = next_event(decoder, states, waited=wait, levels=levels, horizon_max=horizon)
    everything = next_event(decoder, states, waited=wait, levels=levels)
    with torch.no_grad():
        survivals = decoder.log_survival(
            states, torch.tensor([[[0.2, horizon]]], dtype=torch.float64)
        )
    no_event = (survivals[0, 0, 1] - survivals[0, 0, 0]).exp().item()
    assert found.no_event.item() == pytest.approx(no_event, abs=1e-9)
    assert found.quantiles[0, 0].item() == pytest.approx(everything.quantiles[0, 0].item())
    assert (found.quantiles[0, 1] == math.inf) == (no_event > 1e-5)
    assert 0.2 < found.mean.item() < horizon
    draws = torch.linspace(1e-6, 1 - 1e-6, 4001).double() * (1 - no_event)
    times = decoder.elapsed_at(states, wait[None], torch.log1p(-draws)[None, None])
    assert found.mean.item() == pytest.approx(times.mean().item(), abs=3e-4)
    assert found.median.item() == pytest.approx(times.median().item(), abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_position_has_a_horizon_of_its_own(name):
    decoder, states = build(name), states_of(positions=3)
    wait = torch.tensor([[0.0, 0.5, 2.0]]).double()
    ends = torch.tensor([[0.4, 3.0, 2.5]]).double()
    together = next_event(decoder, states, waited=wait, levels=[0.3], horizon_max=ends)
    for i in range(3):
        alone = next_event(
            decoder,
            states.at(torch.tensor([i])),
            waited=wait[:, i],
            levels=[0.3],
            horizon_max=float(ends[0, i]),
        )
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[:, i], b, rtol=1e-9)


@pytest.mark.parametrize("waited", [0.0, 3.0, 1e4, 1e8])
def test_the_mean_before_a_horizon_is_exact_far_out_in_the_tails(waited):
    """Where next to nothing is left of the components, and where they have hardly begun."""
    decoder, states = build("mixture"), states_of()
    wait = torch.tensor([waited]).double()
    end = wait + max(1.0, waited) / 100
    found = next_event(decoder, states, waited=wait, horizon_max=end)
    x, w = (torch.from_numpy(part) for part in np.polynomial.legendre.leggauss(200))
    times = wait + (end - wait) * (x + 1) / 2
    with torch.no_grad():
        density = decoder.log_density(states, times[None, None], torch.zeros(1, 1).long())[0, 0]
    weights = w * (density - density.max()).exp()
    mean = float((weights * times).sum() / weights.sum())
    assert found.mean.item() - waited == pytest.approx(mean - waited, rel=1e-3)
    assert waited <= found.median.item() <= end.item()


@pytest.mark.parametrize("name", ["exponential", "mixture"])
def test_the_mixture_in_closed_form_and_the_table_agree(name):
    decoder, states = build(name), states_of(positions=3)
    wait = torch.tensor([[0.0, 0.5, 20.0]]).double()
    table = SurvivalTable.build(decoder, states, wait)
    found = next_event(decoder, states, waited=wait)
    assert torch.allclose(table.mean(), found.mean, rtol=1e-5)
    assert torch.allclose(table.type_probabilities(), found.type_probabilities, atol=1e-6)
    goals = torch.tensor([-1e-3, -0.5, -5.0]).double().expand(1, 3, -1)
    exact = decoder.elapsed_at(states, wait, goals)
    assert torch.allclose(table.elapsed_at(goals), exact, rtol=1e-4)


def test_all_positions_at_once_and_one_by_one():
    process, states = gold()
    many = EventStates(torch.cat([states.hidden, 3 * states.hidden, 0 * states.hidden], 1))
    wait = torch.tensor([[0.0, 0.3, 2.0]])
    together = next_event(process, many, waited=wait, levels=[0.2])
    for i in range(3):
        alone = next_event(process, many.at(torch.tensor([i])), waited=wait[:, i], levels=[0.2])
        for a, b in zip(together, alone, strict=True):
            assert torch.allclose(a[:, i], b, atol=1e-13)


def test_waiting_is_forgotten_by_a_constant_rate():
    for waited in (0.0, 17.0, 1e5):
        found = next_event(
            ConstantRate(0.5),
            states_of(),
            waited=torch.tensor([waited]).double(),
            levels=[0.9],
        )
        assert found.mean.item() - waited == pytest.approx(2.0, rel=1e-6)
        assert found.median.item() - waited == pytest.approx(2 * math.log(2), rel=1e-6)
        assert found.quantiles.item() - waited == pytest.approx(2 * math.log(10), rel=1e-6)


@pytest.mark.parametrize("rate", [1e-4, 1.0, 1e5])
def test_tables_find_their_range(rate):
    found = next_event(ConstantRate(rate), states_of(), waited=torch.zeros(1), levels=[1e-4])
    assert found.mean.item() == pytest.approx(1 / rate, rel=1e-9)
    assert found.quantiles.item() == pytest.approx(-math.log1p(-1e-4) / rate, rel=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"levels": [1.0]}, "levels must lie between 0 and 1, got 1.0"),
        ({"waited": torch.tensor([-1.0])}, "waited must not be negative"),
        ({"waited": torch.zeros(2)}, "give .batch, positions., or .batch,. with states of one"),
        ({"horizon_max": 0.0}, "horizon_max=0.0 must be later"),
    ],
)
def test_what_cannot_be_asked(options, message):
    process, states = gold()
    with pytest.raises(ValueError, match=message):
        next_event(process, states, **{"waited": torch.zeros(1), **options})


# ------------------------------------------------------------------------------ draws


def test_fault_7_the_mean_of_draws_is_that_of_theory():
    """A constant rate of 0.5 has a mean of 2, not the least of many draws."""
    decoder, count = ConstantRate(0.5), 4000
    many = repeated(states_of(), count)
    error = 2 / math.sqrt(count)
    drawn, types = sample_next(decoder, many, waited=torch.zeros(count), uniforms=uniforms(count))
    assert drawn.mean().item() == pytest.approx(2.0, abs=4 * error)
    assert drawn.std().item() == pytest.approx(2.0, rel=0.1)
    assert (types == 0).all()
    thinned = sample_by_thinning(
        decoder, many, waited=torch.zeros(count), generators=generators(count), horizon_max=1e3
    )
    assert thinned.elapsed.mean().item() == pytest.approx(2.0, abs=4 * error)
    assert thinned.violations == 0


@pytest.mark.parametrize("waited", [0.0, 0.6])
def test_inverse_compensator_and_thinning_draw_the_same(waited):
    process, states = gold()
    count = 3000
    many, wait = repeated(states, count), torch.full((count,), waited)
    drawn, types = sample_next(process, many, waited=wait, uniforms=uniforms(count))
    thinned = sample_by_thinning(
        process, many, waited=wait, generators=generators(count), horizon_max=1e3
    )
    expected = next_event(process, states, waited=torch.tensor([waited]))
    assert stats.ks_2samp(drawn, thinned.elapsed).pvalue > 1e-3
    assert (drawn >= waited).all()
    assert (thinned.elapsed >= waited).all()
    for times, kinds in ((drawn, types), (thinned.elapsed, thinned.types)):
        assert times.mean().item() == pytest.approx(expected.mean.item(), abs=0.08)
        share = (kinds == 0).double().mean().item()
        assert share == pytest.approx(expected.type_probabilities[0, 0].item(), abs=0.04)


@pytest.mark.parametrize("name", NAMES)
def test_draws_follow_the_survival(name):
    decoder, states, count = build(name), states_of(), 2000
    many = repeated(states, count)
    drawn, types = sample_next(decoder, many, waited=torch.zeros(count), uniforms=uniforms(count))
    comes = drawn.isfinite()
    assert torch.equal(types == -1, ~comes)
    never = decoder.log_never(states).exp().item()
    assert (~comes).double().mean().item() == pytest.approx(never, abs=0.05)
    with torch.no_grad():
        survival = decoder.log_survival(states, drawn[comes][None, None]).exp()
    # Given that an event comes, survival is uniform above the probability that none does.
    uniform = (survival.flatten() - never) / (1 - never)
    assert stats.kstest(uniform.numpy(), "uniform").pvalue > 1e-3


def test_the_type_is_drawn_given_the_time():
    process = HawkesProcess(2, mu=[0.0, 1.0], alpha=[[0.9, 0.0], [0.0, 0.0]], beta=[50.0, 1.0])
    state, _ = process.step(process.init_state(1), torch.tensor([0]), torch.tensor([1.0]))
    many = repeated(EventStates(state[:, None]), 500)
    drawn, types = sample_next(process, many, waited=torch.zeros(500), uniforms=uniforms(500))
    assert (types[drawn < 0.01] == 0).double().mean() > 0.9
    assert (types[drawn > 0.5] == 1).all()


def test_a_draw_does_not_depend_on_its_batch():
    process, states = gold()
    many = EventStates(states.hidden * torch.arange(1, 8)[:, None, None])
    wait, numbers = torch.linspace(0, 3, 7), uniforms(7)
    together = sample_next(process, many, waited=wait, uniforms=numbers)
    thinned = sample_by_thinning(
        process, many, waited=wait, generators=generators(7), horizon_max=50.0
    )
    for i in range(7):
        row = torch.tensor([i])
        one = many.select(row, torch.zeros_like(row))
        alone = sample_next(process, one, waited=wait[row], uniforms=numbers[row])
        assert alone[0].item() == pytest.approx(together[0][i].item(), rel=1e-12)
        assert alone[1].item() == together[1][i].item()
        alone = sample_by_thinning(
            process, one, waited=wait[row], generators=generators(7)[i : i + 1], horizon_max=50.0
        )
        assert alone.elapsed.item() == pytest.approx(thinned.elapsed[i].item(), rel=1e-12)
        assert alone.types.item() == thinned.types[i].item()


def test_thinning_raises_a_bound_that_was_too_low_and_says_so():
    """Intensity 0.2 where the bound looks, 2 nearly everywhere: a candidate is sure to find out."""
    count = 2000
    thinned = sample_by_thinning(
        Step(),
        repeated(states_of(), count),
        waited=torch.zeros(count),
        generators=generators(count),
        horizon_max=100.0,
        block=50.0,
        nodes=1,
        bound_factor=1.0,
    )
    assert thinned.violations > 0.9 * count
    early = thinned.elapsed.clamp_max(0.01)
    survival = (-0.2 * early - 2 * (thinned.elapsed - early)).exp()
    assert stats.kstest(survival.numpy(), "uniform").pvalue > 1e-3


def test_a_spike_between_the_nodes_of_a_bound_is_counted():
    count = 300
    many = repeated(states_of(), count)
    thinned = sample_by_thinning(
        Spike(width=0.05, height=40.0),
        many,
        waited=torch.zeros(count),
        generators=generators(count),
        horizon_max=60.0,
        nodes=2,
        bound_factor=20.0,
    )
    assert thinned.violations > 0


def test_thinning_ends_at_the_horizon():
    many = repeated(states_of(), 200)
    thinned = sample_by_thinning(
        ConstantRate(0.5),
        many,
        waited=torch.zeros(200),
        generators=generators(200),
        horizon_max=1.0,
        block=0.3,
    )
    assert (thinned.elapsed[thinned.elapsed.isfinite()] < 1.0).all()
    assert torch.equal(thinned.types == -1, thinned.elapsed.isinf())
    share = thinned.elapsed.isinf().double().mean().item()
    assert share == pytest.approx(math.exp(-0.5), abs=0.12)


def test_what_cannot_be_drawn():
    process, states = gold()
    with pytest.raises(ValueError, match=r"uniforms must be \(1, 2\), got \(1, 1\)"):
        sample_next(process, states, waited=torch.zeros(1), uniforms=torch.zeros(1, 1))
    with pytest.raises(ValueError, match="2 generators for 1 sequences"):
        sample_by_thinning(
            process, states, waited=torch.zeros(1), generators=generators(2), horizon_max=1.0
        )
    with pytest.raises(ValueError, match="bound_factor must be at least 1"):
        sample_by_thinning(
            process,
            states,
            waited=torch.zeros(1),
            generators=generators(1),
            horizon_max=1.0,
            bound_factor=0.5,
        )
