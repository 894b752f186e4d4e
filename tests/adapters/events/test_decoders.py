"""Decoders against each other, against quadrature and against calculus."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from tsllm.adapters.events.batch import EventStates, pad_sequences
from tsllm.adapters.events.decoders.base import EventDecoder, GrowsTypes, log_likelihood
from tsllm.adapters.events.decoders.closed_form import (
    ExponentialDecoder,
    LogNormalMixtureDecoder,
    RMTPPDecoder,
    log_softplus,
    mean_exp,
)
from tsllm.adapters.events.quadrature import squared_rule

HIDDEN, TYPES = 6, 3
NAMES = ["mixture", "rmtpp", "rmtpp falling", "exponential", "softplus"]


class SoftplusDecoder(EventDecoder):
    """Intensities without a closed integral: what a subclass of ours looks like."""

    def __init__(self):
        super().__init__(TYPES)
        self.head = torch.nn.Linear(HIDDEN, TYPES)

    def log_intensities(self, states, elapsed):
        level = self.head(states.hidden)[:, :, None]
        return log_softplus(level + 3 * (-2 * elapsed[..., None]).exp() - 1)


def build(name):
    torch.manual_seed(3)
    if name == "mixture":
        decoder = LogNormalMixtureDecoder(HIDDEN, TYPES, components=4)
    elif name == "exponential":
        decoder = ExponentialDecoder(HIDDEN, TYPES)
    elif name == "softplus":
        decoder = SoftplusDecoder()
    else:
        decoder = RMTPPDecoder(HIDDEN, TYPES)
        torch.nn.init.constant_(decoder.rate, -0.4 if "falling" in name else 0.3)
    return decoder.double().eval()


def random_states(batch=2, positions=2, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return EventStates(
        torch.randn(batch, positions, HIDDEN, generator=generator, dtype=torch.float64)
    )


def random_elapsed(batch=2, positions=2, nodes=5, seed=1, most=4.0):
    generator = torch.Generator().manual_seed(seed)
    return most * torch.rand(batch, positions, nodes, generator=generator, dtype=torch.float64)


def masses(decoder, states, end):
    """Integrate each type's density from 0 to ``end``, in log time, for one position."""
    x, w = np.polynomial.legendre.leggauss(8)
    edges = np.linspace(-30, math.log(end), 301)
    logs = (edges[:-1, None] + np.diff(edges)[:, None] * (x + 1) / 2).ravel()
    weights = torch.from_numpy((np.diff(edges)[:, None] * w / 2).ravel() * np.exp(logs))
    elapsed = torch.from_numpy(np.exp(logs))[None, None]
    with torch.no_grad():
        densities = [
            decoder.log_density(states, elapsed, torch.full((1, 1), kind)).exp()
            for kind in range(decoder.n_types)
        ]
    return np.array([(weights * one[0, 0]).sum().item() for one in densities])


@pytest.mark.parametrize("name", NAMES)
def test_density_and_survival_add_up_to_one(name):
    decoder, states = build(name), random_states(1, 1)
    rest = decoder.log_survival(states, torch.full((1, 1, 1), 7.0).double()).exp().item()
    assert rest < 0.9
    assert masses(decoder, states, 7.0).sum() + rest == pytest.approx(1, abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_derivative_of_minus_log_survival_is_the_intensity(name):
    decoder, states = build(name), random_states()
    elapsed = random_elapsed().requires_grad_()
    (slope,) = torch.autograd.grad(-decoder.log_survival(states, elapsed).sum(), elapsed)
    intensity = decoder.log_intensities(states, elapsed).exp().sum(-1)
    assert torch.allclose(slope, intensity, atol=1e-7, rtol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_parts_of_a_decoder_agree(name):
    decoder, states, elapsed = build(name), random_states(), random_elapsed()
    types = torch.tensor([[0, 2], [1, 1]])
    density, survival = decoder.log_density_and_survival(states, elapsed, types)
    assert torch.allclose(survival, decoder.log_survival(states, elapsed))
    assert torch.allclose(survival, -decoder.compensators(states, elapsed).sum(-1))
    intensities = decoder.log_intensities(states, elapsed)
    chosen = intensities.gather(-1, types[:, :, None, None].expand(2, 2, 5, 1))[..., 0]
    assert torch.allclose(density, chosen + survival)
    assert torch.allclose(density, decoder.log_density(states, elapsed, types))
    given_time = decoder.type_log_probabilities(states, elapsed)
    assert torch.allclose(given_time, intensities.log_softmax(-1))


@pytest.mark.parametrize("name", ["rmtpp", "rmtpp falling", "exponential"])
def test_closed_compensators_equal_the_quadrature(name):
    decoder, states, elapsed = build(name), random_states(), random_elapsed()
    by_points = EventDecoder.compensators(decoder, states, elapsed)
    assert torch.allclose(decoder.compensators(states, elapsed), by_points, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("name", NAMES)
def test_type_probabilities_over_all_times_are_those_of_the_density(name):
    decoder, states = build(name), random_states(1, 1)
    found = decoder.type_log_probabilities(states).exp()[0, 0].detach().numpy()
    expected = masses(decoder, states, 2000.0)
    assert found == pytest.approx(expected / expected.sum(), abs=1e-6)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("waited", [0.0, 0.7])
def test_elapsed_at_inverts_the_survival(name, waited):
    decoder, states = build(name), random_states()
    wait = torch.full((2, 2), waited).double()
    goals = torch.tensor([-1e-3, -0.3, -1.1]).double().expand(2, 2, -1)
    with torch.no_grad():
        never = decoder.log_never(states) - decoder.log_survival(states, wait[..., None])[..., 0]
        elapsed = decoder.elapsed_at(states, wait, goals)
        reached = elapsed.isfinite()
        assert torch.equal(reached, goals > never[..., None])
        back = decoder.log_survival(states, elapsed.clamp_max(1e6))
        back = back - decoder.log_survival(states, wait[..., None])
    assert reached.sum() >= 8
    assert (elapsed >= waited).all()
    assert torch.allclose(back[reached], goals[reached], atol=1e-7)


@pytest.mark.parametrize("rate", [0.0, 1e-9, -1e-9, 3e-5, -3e-5, 2e-4])
def test_rmtpp_is_smooth_where_its_rate_is_zero(rate):
    decoder, states, elapsed = build("rmtpp"), random_states(), random_elapsed()
    torch.nn.init.constant_(decoder.rate, rate)
    exact = EventDecoder.log_survival(decoder, states, elapsed)
    closed = decoder.log_survival(states, elapsed)
    assert torch.allclose(closed, exact, rtol=1e-10)
    (slope,) = torch.autograd.grad(closed.sum(), decoder.rate)
    (expected,) = torch.autograd.grad(exact.sum(), decoder.rate)
    assert slope.item() == pytest.approx(expected.item(), rel=1e-4)
    wait = torch.zeros(2, 2).double()
    levels = decoder.elapsed_at(states, wait, closed[..., :1].detach())
    assert torch.allclose(levels, elapsed[..., :1], rtol=1e-8)


def test_rmtpp_with_a_falling_intensity_may_end():
    decoder, states = build("rmtpp falling"), random_states()
    far = decoder.log_survival(states, torch.full((2, 2, 1), 1e4).double())[..., 0]
    assert torch.allclose(decoder.log_never(states), far)
    assert (build("rmtpp").log_never(states) == -math.inf).all()


def test_rmtpp_does_not_overflow_into_nan():
    decoder = RMTPPDecoder(HIDDEN, TYPES)
    torch.nn.init.constant_(decoder.rate, 5.0)
    states, elapsed = random_states(), torch.full((2, 2, 1), 1e3)
    log_density = decoder.log_density(
        EventStates(states.hidden.float()), elapsed, torch.zeros(2, 2, dtype=torch.int64)
    )
    log_density.sum().backward()
    assert log_density.isfinite().all()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)


def test_the_mixture_is_scipys_log_normals():
    decoder, states = build("mixture"), random_states(1, 1)
    weights, means, spreads = (part[0, 0].detach().numpy() for part in decoder.mixture(states))
    parts = [stats.lognorm(s, scale=math.exp(m)) for s, m in zip(spreads, means, strict=True)]
    for time in (1e-3, 0.4, 3.0, 50.0):
        elapsed = torch.full((1, 1, 1), time).double()
        expected = sum(math.exp(w) * one.sf(time) for w, one in zip(weights, parts, strict=True))
        assert decoder.log_survival(states, elapsed).exp().item() == pytest.approx(expected)
        expected = sum(math.exp(w) * one.pdf(time) for w, one in zip(weights, parts, strict=True))
        density = sum(
            decoder.log_density(states, elapsed, torch.full((1, 1), kind)).exp().item()
            for kind in range(TYPES)
        )
        assert density == pytest.approx(expected)


def test_the_mixture_keeps_its_spreads_within_bounds():
    decoder, states = build("mixture"), random_states()
    with torch.no_grad():
        decoder.time_head.bias[8:10] = -50.0
        decoder.time_head.bias[10:] = 50.0
    spreads = decoder.mixture(states)[2].detach()
    assert spreads.min().item() == pytest.approx(math.exp(-4))
    assert spreads.max().item() == pytest.approx(3)


def test_the_mixture_far_in_its_tail_has_finite_gradients():
    decoder = LogNormalMixtureDecoder(HIDDEN, TYPES)
    states = EventStates(random_states().hidden.float().requires_grad_())
    for time in (0.0, 1e-12, 1e12):
        elapsed = torch.full((2, 2, 1), time)
        parts = decoder.log_density_and_survival(states, elapsed, torch.zeros(2, 2).long())
        gradients = torch.autograd.grad(sum(parts).sum(), [states.hidden, decoder.time_head.weight])
        assert all(part.isfinite().all() for part in (*parts, *gradients))


def test_exponential_inhibits_and_excites_and_is_never_negative():
    decoder, states = build("exponential"), random_states(8, 8)
    times = torch.tensor([0.0, 0.5, 100.0]).double().expand(8, 8, 3)
    values = decoder.log_intensities(states, times).exp()
    base = torch.nn.functional.softplus(decoder.base)
    assert torch.allclose(values[:, :, 2], base.expand(8, 8, -1))
    assert (values[:, :, 0] > base).any()
    assert (values[:, :, 0] < base).any()
    with torch.no_grad():
        decoder.start_head.bias.fill_(-500.0)  # nothing right after an event
    silent = decoder.log_intensities(states, times)
    assert silent.isfinite().all()
    silent.sum().backward()
    assert decoder.start_head.weight.grad.isfinite().all()


def test_a_type_head_can_be_given():
    head = torch.nn.Linear(HIDDEN, TYPES, bias=False).double()
    states = random_states()
    for make in (LogNormalMixtureDecoder, RMTPPDecoder):
        decoder = make(HIDDEN, TYPES, type_head=head).double()
        expected = head(states.hidden).log_softmax(-1)
        assert torch.equal(decoder.type_log_probabilities(states), expected)


@pytest.mark.parametrize("name", ["mixture", "rmtpp", "exponential"])
def test_growing_keeps_what_is_known_of_the_old_types(name):
    decoder, states, elapsed = build(name), random_states(), random_elapsed()
    before = decoder.log_intensities(states, elapsed)
    decoder.grow_types(TYPES + 2)
    after = decoder.log_intensities(states, elapsed)
    assert after.shape[-1] == decoder.n_types == TYPES + 2
    old = before - before[..., :1]
    assert torch.allclose(after[..., :TYPES] - after[..., :1], old, atol=1e-9)
    assert after.isfinite().all()
    assert all(p.requires_grad for p in decoder.parameters())
    with pytest.raises(ValueError, match="less than the 5 there are"):
        decoder.grow_types(4)


def test_only_decoders_that_say_how_can_grow():
    assert not isinstance(SoftplusDecoder(), GrowsTypes)
    for name in ("mixture", "rmtpp", "exponential"):
        assert isinstance(build(name), GrowsTypes)

    class Grows(SoftplusDecoder, GrowsTypes):
        """Promises to grow, and does not say how."""

    with pytest.raises(TypeError, match=r"abstract method '?_grow"):
        Grows()


# ------------------------------------------------------------------------------ quadrature


def test_the_rule_is_exact_where_the_mean_of_points_is_off_by_tens_of_percents():
    for decay in (0.5, 2.0, 10.0, 50.0):

        def intensity(s, decay=decay):
            return np.log1p(np.exp(-1 + 6 * np.exp(-decay * s)))

        exact = integrate.quad(intensity, 0, 5, limit=500, epsabs=1e-13)[0]
        points, weights = squared_rule(torch.tensor(5.0).double(), 16)
        value = (weights * torch.from_numpy(intensity(points.numpy()))).sum().item()
        assert value == pytest.approx(exact, rel=1.5e-4)
    mean_of_20 = 5 * intensity(np.linspace(0, 5, 20)).mean()
    assert mean_of_20 > 1.6 * exact


def test_the_rule_against_a_dilogarithm():
    """The integral of the Transformer Hawkes process's intensity, which is known by Li2."""
    points, weights = squared_rule(torch.tensor(2.5).double(), 16)
    values = torch.nn.functional.softplus(1.7 * (0.3 - 0.7 * points)) / 1.7
    assert (weights * values).sum().item() == pytest.approx(0.574998191317548, abs=1e-12)


def test_more_nodes_are_used_in_evaluation():
    decoder, seen = SoftplusDecoder().double(), []
    original = decoder.log_intensities
    decoder.log_intensities = lambda states, times: (
        seen.append(times.shape) or original(states, times)
    )
    elapsed = torch.ones(2, 2, 3).double()
    decoder.log_survival(random_states(), elapsed)
    decoder.eval().log_survival(random_states(), elapsed)
    assert [shape[2] for shape in seen] == [3 * 16, 3 * 32]


# ------------------------------------------------------------------------------ likelihood


def three_rows():
    """Rows of 3, 0 and 1 events, the last in an unknown window."""
    return pad_sequences(
        [[0.5, 1.0, 0.2], [], [7.0]],
        [[0, 2, 1], [], [1]],
        first_known=[True, True, False],
        tails=[0.4, 3.0, 0.6],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("name", NAMES)
def test_fault_12_first_interval_and_tail_are_counted(name):
    decoder, batch, states = build(name), three_rows(), random_states(3, 4)
    values = log_likelihood(decoder, states, batch)
    for row, position, elapsed, kind in [
        (0, 0, 0.5, 0),
        (0, 1, 1.0, 2),
        (0, 2, 0.2, 1),
        (0, 3, 0.4, None),
        (1, 0, 3.0, None),
        (2, 1, 0.6, None),
    ]:
        one = EventStates(states.hidden[row, position][None, None])
        time = torch.full((1, 1, 1), elapsed).double()
        if kind is None:
            expected = decoder.log_survival(one, time)
        else:
            expected = decoder.log_density(one, time, torch.tensor([[kind]]))
        assert values[row, position].item() == pytest.approx(expected.item())
    assert values[2, 0] == 0  # the window's start is not known
    assert (values[1:, 2:] == 0).all()
    assert (values != 0).sum() == 6


def test_fault_12_log_intensities_have_no_epsilon():
    x = torch.tensor([-800.0, -90.0, -40.0, -15.0, 0.0, 40.0], dtype=torch.float64)
    expected = [-800, -90, -40, math.log(math.log1p(math.exp(-15))), math.log(math.log(2))]
    assert log_softplus(x)[:5].tolist() == pytest.approx(expected, abs=1e-12)
    x32 = torch.linspace(-120, 60, 1000, requires_grad=True)
    log_softplus(x32).sum().backward()
    assert torch.allclose(log_softplus(x32), log_softplus(x32.double()).float(), atol=1e-5)
    assert ((x32.grad > 0) & (x32.grad <= 1.0001)).all()


@pytest.mark.parametrize("name", NAMES)
def test_what_is_given_is_divided_out(name):
    decoder, states = build(name), random_states(1, 3)
    whole = pad_sequences(
        [[2.0, 3.0]], [[0, 1]], first_known=[True], tails=[1.0], dtype=torch.float64
    )
    cut = pad_sequences(
        [[2.0, 3.0]],
        [[0, 1]],
        first_known=[True],
        tails=[1.0],
        score_from=[2.7],
        dtype=torch.float64,
    )
    full, part = log_likelihood(decoder, states, whole), log_likelihood(decoder, states, cut)
    waited = decoder.log_survival(states, torch.full((1, 3, 1), 0.7).double())[0, 1, 0]
    assert part[0, 0] == 0
    assert part[0, 1].item() == pytest.approx((full[0, 1] - waited).item())
    assert part[0, 2] == full[0, 2]


@pytest.mark.parametrize("name", NAMES)
def test_padding_gives_no_likelihood_and_no_gradient(name):
    decoder, batch = build(name), three_rows()
    hidden = random_states(3, 4).hidden
    # What an encoder may leave where a sequence has ended already.
    hidden = torch.where(batch.scored[..., None], hidden, torch.nan).requires_grad_()
    values = log_likelihood(decoder, EventStates(hidden), batch)
    assert values.isfinite().all()
    values.sum().backward()
    assert hidden.grad.isfinite().all()
    assert (hidden.grad[~batch.scored] == 0).all()
    assert all(p.grad.isfinite().all() for p in decoder.parameters())


@pytest.mark.parametrize("name", ["mixture", "exponential"])
def test_float32_likelihoods_are_those_of_float64(name):
    decoder, batch, states = build(name), three_rows(), random_states(3, 4)
    exact = log_likelihood(decoder, states, batch)
    single = pad_sequences(
        [[0.5, 1.0, 0.2], [], [7.0]],
        [[0, 2, 1], [], [1]],
        first_known=[True, True, False],
        tails=[0.4, 3.0, 0.6],
    )
    rounded = log_likelihood(decoder.float(), EventStates(states.hidden.float()), single)
    assert torch.allclose(rounded.double(), exact, atol=2e-5)


def test_mean_exp_by_series_and_directly():
    x = torch.tensor([0.0, 1e-9, -1e-5, 9.9e-5, 1.01e-4, -3.0, 20.0], dtype=torch.float64)
    x.requires_grad_()
    exact = [1.0, *(math.expm1(v) / v for v in x[1:].tolist())]
    assert mean_exp(x).tolist() == pytest.approx(exact, rel=1e-12)
    mean_exp(x).sum().backward()
    assert x.grad[0] == 0.5


def test_a_mixture_from_before_the_common_change_is_read_as_it_was():
    """Each component's location and spread were linear in the state."""
    old = {"type_head.weight": torch.randn(2, 8), "type_head.bias": torch.randn(2)}
    old |= {"time_head.weight": torch.randn(9, 8) / 4, "time_head.bias": torch.randn(9)}
    decoder = LogNormalMixtureDecoder(8, 2, components=3)
    decoder.load_state_dict(dict(old))
    states = EventStates(torch.randn(2, 4, 8))
    weights, means, log_spreads = (
        states.hidden @ old["time_head.weight"].T + old["time_head.bias"]
    ).chunk(3, -1)
    found = decoder.mixture(states)
    spreads = log_spreads.clamp(-4.0, math.log(3.0)).exp()
    for own, expected in zip(found, (weights.log_softmax(-1), means, spreads), strict=True):
        torch.testing.assert_close(own, expected)
    again = LogNormalMixtureDecoder(8, 2, components=3)
    again.load_state_dict(decoder.state_dict())
    torch.testing.assert_close(again.mixture(states), found, rtol=0, atol=0)
