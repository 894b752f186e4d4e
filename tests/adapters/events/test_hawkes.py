"""The Hawkes process against gold values and plain loops."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.func import functional_call

from tsllm.adapters.events.batch import EventStates, pad_sequences
from tsllm.adapters.events.decoders.base import EventDecoder, log_likelihood
from tsllm.adapters.events.hawkes import HawkesProcess, decayed_sums
from tsllm.adapters.events.survival_table import bisect_elapsed

MU, ALPHA, BETA = [0.5, 0.3], [[0.3, 0.1], [0.2, 0.4]], [2.0, 1.5]
TIMES, KINDS = np.array([0.3, 0.7, 1.2, 2.5, 2.6, 4.0]), [0, 1, 0, 1, 1, 0]


def gold():
    return HawkesProcess(2, mu=MU, alpha=ALPHA, beta=BETA)


def gold_batch(times=TIMES, kinds=KINDS, end=5.0, **options):
    return pad_sequences(
        [np.diff(times, prepend=0.0)],
        [kinds],
        first_known=[True],
        tails=[end - times[-1]],
        dtype=torch.float64,
        **options,
    )


def total(process, batch):
    return log_likelihood(process, process.encode(batch), batch).sum()


def simulated_batch(lengths, seed=0, types=2):
    rng = np.random.default_rng(seed)
    return pad_sequences(
        [rng.exponential(size=n) for n in lengths],
        [rng.integers(0, types, n) for n in lengths],
        first_known=[True] * len(lengths),
        tails=rng.exponential(size=len(lengths)),
        dtype=torch.float64,
    )


def test_gold_1():
    assert total(gold(), gold_batch()).item() == pytest.approx(-10.431166433487, abs=5e-13)


def test_gold_2():
    process = HawkesProcess(1, mu=[0.4], alpha=[[0.6]], beta=[1.2])
    batch = gold_batch(np.array([0.5, 1, 1.1, 3, 7]), [0] * 5, end=10.0)
    assert total(process, batch).item() == pytest.approx(-9.252111223861, abs=5e-13)


def test_the_plain_double_sum():
    batch = simulated_batch([7, 20, 0, 1])
    process = gold()
    values = log_likelihood(process, process.encode(batch), batch)
    mu, alpha, beta = np.array(MU), np.array(ALPHA), np.array(BETA)
    for row, n in enumerate([7, 20, 0, 1]):
        times = batch.gaps[row, :n].numpy().cumsum()
        kinds = batch.types[row, :n].tolist()
        end = (times[-1] if n else 0) + batch.elapsed[row, n].item()
        expected = -(mu * end).sum()
        for i in range(n):
            lags = times[i] - times[:i]
            rate = mu[kinds[i]] + sum(
                alpha[kinds[i], k] * beta[kinds[i]] * math.exp(-beta[kinds[i]] * lag)
                for k, lag in zip(kinds[:i], lags, strict=True)
            )
            expected += math.log(rate)
            expected -= (alpha[:, kinds[i]] * (1 - np.exp(-beta * (end - times[i])))).sum()
        assert values[row].sum().item() == pytest.approx(expected, abs=1e-11)


def test_quadrature_against_the_closed_form():
    process, batch = gold(), gold_batch()
    states = process.encode(batch)
    elapsed = batch.elapsed[..., None]
    process.train()
    by_points = EventDecoder.log_survival(process, states, elapsed)
    assert torch.allclose(by_points, process.log_survival(states, elapsed), atol=1e-6, rtol=0)
    process.eval()
    by_points = EventDecoder.log_survival(process, states, elapsed)
    assert torch.allclose(by_points, process.log_survival(states, elapsed), atol=1e-12, rtol=0)


def test_gradients_of_the_likelihood():
    batch = simulated_batch([12, 5], seed=3)
    names = ["log_mu", "log_alpha", "log_beta"]
    process = _Total(gold())

    def value(*parameters):
        changed = {f"process.{k}": v for k, v in zip(names, parameters, strict=True)}
        return functional_call(process, changed, (batch,))

    parameters = [getattr(gold(), name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(value, parameters)


class _Total(torch.nn.Module):
    def __init__(self, process):
        super().__init__()
        self.process = process

    def forward(self, batch):
        return total(self.process, batch)


@pytest.mark.parametrize("events", [1, 2, 3, 64, 200])
def test_the_scan_is_the_recursion(events):
    rng = np.random.default_rng(events)
    jumps = torch.from_numpy(rng.normal(size=(2, events, 3)))
    fades = torch.from_numpy(rng.exponential(size=(2, events, 3)) * 3)
    expected, state = [], torch.zeros(2, 3, dtype=torch.float64)
    for i in range(events):
        state = state * (-fades[:, i]).exp() + jumps[:, i]
        expected.append(state)
    assert torch.allclose(decayed_sums(jumps, fades), torch.stack(expected, 1), atol=1e-13)


def test_the_scan_stands_huge_gaps_and_no_gaps():
    jumps = torch.ones(1, 5, 1, dtype=torch.float64)
    fades = torch.tensor([9.0, 0.0, 1e300, 0.0, 1e-300]).double().view(1, 5, 1)
    assert decayed_sums(jumps, fades).flatten().tolist() == [1, 2, 1, 2, 3]


def test_steps_equal_the_scan():
    process, batch = gold(), gold_batch()
    states = process.encode(batch)
    state = process.init_state(1)
    for i in range(6):
        before = state.clone()
        after, one = process.step(state, batch.types[:, i], batch.gaps[:, i])
        assert torch.equal(state, before)
        state = after
        assert torch.allclose(one.hidden, states.hidden[:, i + 1 : i + 2], atol=1e-14)


def test_a_sequence_alone_and_beside_longer_ones():
    process = gold()
    batch = simulated_batch([7, 40, 0, 3], seed=5)
    values = log_likelihood(process, process.encode(batch), batch)
    for row, n in enumerate([7, 40, 0, 3]):
        one = batch.select(torch.tensor([row]))
        cut = pad_sequences(
            [one.gaps[0, :n].numpy()],
            [one.types[0, :n].numpy()],
            first_known=[True],
            tails=[one.elapsed[0, n].item()],
            dtype=torch.float64,
        )
        alone = log_likelihood(process, process.encode(cut), cut)
        assert torch.allclose(values[row, : n + 1], alone[0], atol=1e-12)


@given(scale=st.floats(1e-3, 1e3))
@settings(max_examples=20, deadline=None)
def test_another_unit_of_time_costs_log_scale_an_event(scale):
    scaled = HawkesProcess(2, mu=np.array(MU) / scale, alpha=ALPHA, beta=np.array(BETA) / scale)
    longer = gold_batch(TIMES * scale, end=5.0 * scale)
    expected = total(gold(), gold_batch()).item() - 6 * math.log(scale)
    assert total(scaled, longer).item() == pytest.approx(expected, abs=1e-9)


def test_relabelled_types_have_the_same_likelihood():
    swapped = HawkesProcess(2, mu=MU[::-1], alpha=np.array(ALPHA)[::-1, ::-1], beta=BETA[::-1])
    other = gold_batch(kinds=[1 - k for k in KINDS])
    assert total(swapped, other).item() == pytest.approx(total(gold(), gold_batch()).item())


def test_residuals_are_exponential_for_the_truth_and_not_for_poisson():
    rng = np.random.default_rng(0)
    times, kinds = _ogata(rng, events=1500)
    batch = gold_batch(times, kinds, end=times[-1] + 0.1)
    for process, low, high in [
        (gold(), 1e-3, 1.0),
        (HawkesProcess(2, mu=[0.825, 0.775], alpha=np.zeros((2, 2)), beta=BETA), 0, 1e-6),
    ]:
        process.eval()
        residuals = process.compensators(process.encode(batch), batch.elapsed[..., None]).sum(-1)
        p = stats.kstest(residuals[0, :-1, 0].detach().numpy(), "expon").pvalue
        assert low <= p <= high


def _ogata(rng, events):
    """Simulate the gold process by thinning, in plain Python."""
    mu, alpha, beta = np.array(MU), np.array(ALPHA), np.array(BETA)
    excited, time, times, kinds = np.zeros(2), 0.0, [], []
    while len(times) < events:
        bound = (mu + excited).sum()
        gap = rng.exponential(1 / bound)
        time += gap
        excited = excited * np.exp(-beta * gap)
        rates = mu + excited
        if rng.random() * bound < rates.sum():
            kind = int(rng.random() * rates.sum() > rates[0])
            excited = excited + alpha[:, kind] * beta
            times.append(time)
            kinds.append(kind)
    return np.array(times), kinds


def test_maximum_likelihood_finds_the_parameters():
    times, kinds = _ogata(np.random.default_rng(1), events=4000)
    batch = gold_batch(times, kinds, end=times[-1])
    process = HawkesProcess(2)
    optimiser = torch.optim.LBFGS(process.parameters(), max_iter=60, line_search_fn="strong_wolfe")

    def closure():
        optimiser.zero_grad()
        loss = -total(process, batch) / len(times)
        loss.backward()
        return loss

    optimiser.step(closure)
    assert process.mu.tolist() == pytest.approx(MU, abs=0.06)
    assert process.alpha.flatten().tolist() == pytest.approx(np.ravel(ALPHA), abs=0.08)
    assert -closure().item() >= (total(gold(), batch) / len(times)).item()


def test_parameters_are_checked_and_zero_branching_stays_zero():
    with pytest.raises(ValueError, match="beta must be positive"):
        HawkesProcess(1, mu=[1.0], alpha=[[0.0]], beta=[0.0])
    with pytest.raises(ValueError, match="alpha must be finite and not negative"):
        HawkesProcess(1, mu=[1.0], alpha=[[-0.1]], beta=[1.0])
    with pytest.raises(ValueError, match=r"mu must have shape \(2,\), got \(1,\)"):
        HawkesProcess(2, mu=[1.0])
    process = HawkesProcess(2, mu=MU, alpha=[[0.0, 0.1], [0.2, 0.0]], beta=BETA)
    total(process, gold_batch()).backward()
    assert process.log_alpha.grad.isfinite().all()
    assert process.alpha[0, 0] == 0


def test_without_a_base_rate_it_can_end():
    process = HawkesProcess(1, mu=[0.0], alpha=[[0.5]], beta=[1.0])
    batch = gold_batch(np.array([1.0]), [0], end=2.0)
    after = process.encode(batch).at(batch.lengths)
    assert process.log_never(after).item() == pytest.approx(-0.5)
    assert (gold().log_never(gold().encode(gold_batch())) == -math.inf).all()


@pytest.mark.parametrize("mu", [[0.5, 0.3], [1e-9, 0.0], [0.0, 0.0]])
def test_quantiles_by_newton_equal_those_by_bisection(mu):
    """Also where the excitation is used up, and only a small or no base rate is left."""
    generator = torch.Generator().manual_seed(0)
    process = HawkesProcess(2, mu=mu, alpha=ALPHA, beta=[2.0, 50.0])
    states = EventStates(3 * torch.rand(50, 1, 2, generator=generator, dtype=torch.float64))
    waited = 2 * torch.rand(50, 1, generator=generator, dtype=torch.float64)
    goals = torch.rand(50, 1, 4, generator=generator, dtype=torch.float64).log()
    found = process.elapsed_at(states, waited, goals)
    expected = bisect_elapsed(lambda at: process.log_survival(states, at), waited, goals)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=0)
    assert bool(found.isinf().any()) == (sum(mu) == 0)


def test_expected_events_solve_the_equation_of_the_mean():
    process = HawkesProcess(2, mu=[0.5, 0.3], alpha=[[0.3, 0.2], [0.4, 0.1]], beta=[2.0, 1.0])
    start = torch.tensor([[[0.4, 1.5]], [[0.0, 0.0]]], dtype=torch.float64)
    until = torch.tensor([20.0, 5.0])
    found = process.expected_events(EventStates(start), torch.tensor([0.5, 0.0]), until)
    # Small steps of the same equation, from the excitation that is left after the waiting time.
    beta, jumps = process.beta.detach(), process.beta.detach()[:, None] * process.alpha.detach()
    for row, (waited, end) in enumerate([(0.5, 20.0), (0.0, 5.0)]):
        x, total, n = start[row, 0] * (-beta * waited).exp(), 0.0, 40_000
        step = (end - waited) / n
        for _ in range(n):
            rate = process.mu.detach() + x
            total += step * float(rate.sum())
            x = x + step * (jumps @ rate - beta * x)
        assert float(found[row]) == pytest.approx(total, rel=1e-3)


def test_expected_events_of_an_explosion_are_infinite_and_of_a_long_silence_finite():
    waited, until = torch.tensor([0.0]), torch.tensor([1e9])
    state = EventStates(torch.zeros(1, 1, 1, dtype=torch.float64))
    explosive = HawkesProcess(1, mu=[0.1], alpha=[[1.2]], beta=[1.0])
    assert explosive.expected_events(state, waited, until).item() == np.inf
    calm = HawkesProcess(1, mu=[0.1], alpha=[[0.5]], beta=[1.0])
    assert calm.expected_events(state, waited, until).item() == pytest.approx(2e8, rel=1e-6)
