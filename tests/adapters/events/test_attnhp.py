"""AttNHP against plain loops: masks, prompts, streams, times."""

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from tsllm.adapters.events.batch import EventStates, pad_sequences
from tsllm.adapters.events.decoders.attnhp import BLOCK, AttNHPDecoder, AttNHPEncoder
from tsllm.adapters.events.decoders.base import log_likelihood
from tsllm.adapters.events.features import EventEmbedding
from tsllm.adapters.events.next_event import next_event
from tsllm.adapters.events.prompt_pool import PromptPool
from tsllm.adapters.events.prompt_query import CausalQuery

TYPES, HIDDEN, LAYERS, HEADS = 3, 16, 2, 2


def build(*, median_gap=1.0, heads=HEADS, time_width=4):
    torch.manual_seed(0)
    embedding = EventEmbedding(TYPES, HIDDEN, time_features=8, median_gap=median_gap)
    encoder = AttNHPEncoder(embedding, layers=LAYERS, heads=heads, time_width=time_width)
    decoder = AttNHPDecoder(HIDDEN, TYPES)
    return encoder.double().eval(), decoder.double().eval()


def make_batch(lengths, seed=0, dtype=torch.float64, **options):
    rng = np.random.default_rng(seed)
    gaps = [rng.exponential(size=n) for n in lengths]
    types = [rng.integers(0, TYPES, n) for n in lengths]
    tails = rng.exponential(size=len(lengths))
    return pad(gaps, types, tails, dtype=dtype, **options)


def pad(gaps, types, tails, **options):
    options = {"first_known": [True] * len(gaps), "dtype": torch.float64, **options}
    return pad_sequences(gaps, types, tails=tails, **options)


def cut(batch, row, length):
    """The first events of one sequence, as a batch of its own."""
    return pad([batch.gaps[row, :length].numpy()], [batch.types[row, :length].numpy()], [math.nan])


def choosing(slots=3, length=2, top_slots=2):
    """A pool whose slots are chosen anew at every position, and its query."""
    torch.manual_seed(1)
    query = CausalQuery(TYPES, size=8)
    pool = PromptPool(
        LAYERS,
        HIDDEN,
        query_size=8,
        hidden=HIDDEN,
        max_slots=slots,
        slots_per_slice=slots,
        length=length,
        top_slots=top_slots,
        min_context=0,
    )
    pool.open_slots(query(make_batch([60], seed=9)).vectors[0])
    pool.double()
    return lambda batch: pool.choose(query(batch))


def no_prompts(batch):
    return None


PROMPTS = [pytest.param(False, id="plain"), pytest.param(True, id="prompts")]


def chooser(prompted):
    return choosing() if prompted else no_prompts


def elapsed_of(batch, nodes=3, seed=2):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(batch), batch.gaps.shape[1] + 1, nodes)
    return 3 * torch.rand(shape, generator=generator, dtype=torch.float64)


def part_of_head(head, vector, size):
    return vector[head * size : (head + 1) * size]


def by_loops(encoder, decoder, batch, row, elapsed, choice):
    """Log intensities at times after each position of one sequence: a loop over everything.

    Prompts are concatenated row by row, structural and temporal part together.
    """
    rates = encoder.rates / encoder.embedding.time_encoding.median.double()
    times = np.concatenate([[0.0], batch.gaps[row].numpy().cumsum()])
    tokens = list(encoder.embedding(batch)[row])
    width = encoder.blocks[0].width
    content = encoder.blocks[0].content

    def turned(vector, time, head):
        vector = vector.clone()
        for pair, rate in enumerate(rates[head].tolist()):
            c, s = math.cos(rate * time), math.sin(rate * time)
            a, b = vector[content + 2 * pair], vector[content + 2 * pair + 1]
            vector[content + 2 * pair : content + 2 * pair + 2] = torch.stack(
                [a * c - b * s, a * s + b * c]
            )
        return vector

    def mixed(number, layer, x, time, seen, position):
        """Compute the attention of x at a time to the tokens before ``seen``."""
        out = []
        for head in range(encoder.heads):
            of = partial(part_of_head, head)
            q = turned(of(layer.query_layer(x), width), time, head)
            scores, values = [], []
            for j in range(seen):
                k = of(layer.key_layer(streams[number][j]), width)
                k = (
                    torch.cat([k[:content], torch.zeros(width - content)])
                    if j == 0
                    else turned(k, times[j], head)
                )
                scores.append(q @ k)
                values.append(of(layer.value_layer(streams[number][j]), HIDDEN // encoder.heads))
            if choice is not None:
                code = encoder.embedding.time_encoding(choice.mean_gap)[row, position]
                visible = choice.visible_rows[row, position].tolist()
                rows = zip(choice.key_rows(number), choice.value_rows(number), visible, strict=True)
                for key_row, value_row, shown in rows:
                    if shown:
                        k = of(layer.key_layer(key_row), width)[:content]
                        k = k + of(layer.time_key_layer(code), content)
                        scores.append(q[:content] @ k)
                        v = of(layer.value_layer(value_row), HIDDEN // encoder.heads)
                        v = v + of(layer.time_value_layer(code), HIDDEN // encoder.heads)
                        values.append(v)
            if not scores:
                out.append(torch.zeros(HIDDEN // encoder.heads))
                continue
            weights = (torch.stack(scores) / math.sqrt(width)).exp()
            out.append(
                sum(w * v for w, v in zip(weights, values, strict=True)) / (1 + weights.sum())
            )
        return torch.cat(out).tanh()

    streams = [tokens]
    for number, layer in enumerate(encoder.blocks):
        streams.append(
            [x + mixed(number, layer, x, times[i], i, i) for i, x in enumerate(streams[number])]
        )
    result = torch.empty(*elapsed.shape[1:], TYPES)
    for i in range(elapsed.shape[1]):
        for n in range(elapsed.shape[2]):
            z = torch.zeros(HIDDEN)
            for number, layer in enumerate(encoder.blocks):
                now = times[i] + elapsed[row, i, n].item()
                z = z + mixed(number, layer, z, now, i + 1, i)
            result[i, n] = torch.nn.functional.softplus(decoder.head(z)).log()
    return torch.stack(streams[-1]), result


@pytest.mark.parametrize("prompted", PROMPTS)
def test_everything_equals_plain_loops(prompted):
    """Every event, query, head and layer by itself.

    Faults 2 and 5: masks are of the right keys, and a prompt's keys and values go together.
    """
    (encoder, decoder), batch = build(), make_batch([4, 3])
    choice, elapsed = chooser(prompted)(batch), elapsed_of(batch, nodes=2)
    with torch.no_grad():
        states = encoder.encode(batch, choice)
        values = decoder.log_intensities(states, elapsed)
        torch.set_default_dtype(torch.float64)
        try:
            for row, length in enumerate([4, 3]):
                hidden, expected = by_loops(encoder, decoder, batch, row, elapsed, choice)
                real = slice(0, length + 1)
                assert torch.allclose(states.hidden[row, real], hidden[real], atol=1e-12)
                assert torch.allclose(values[row, real], expected[real], atol=1e-12)
        finally:
            torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("prompted", PROMPTS)
def test_fault_2_later_events_change_nothing_before_them(prompted):
    encoder, decoder = build()
    batch, choose = make_batch([30]), chooser(prompted)
    position = 12
    gaps, types = batch.gaps[0].numpy().copy(), batch.types[0].numpy().copy()
    gaps[position:] *= 7
    types[position:] = (types[position:] + 1) % TYPES
    other = pad([gaps], [types], [0.5])
    elapsed = elapsed_of(batch)
    with torch.no_grad():
        both = [
            decoder.log_intensities(encoder.encode(one, choose(one)), elapsed)
            for one in (batch, other)
        ]
    difference = (both[0] - both[1]).abs()
    assert difference[:, : position + 1].max() < 1e-12
    assert difference[:, position + 1 :].amin((0, 2, 3)).min() > 1e-9


@pytest.mark.parametrize("prompted", PROMPTS)
def test_fault_4_a_sequence_does_not_depend_on_its_batch(prompted):
    (encoder, decoder), choose = build(), chooser(prompted)
    lengths = [30, 4, 0, 17]
    batch = make_batch(lengths)
    with torch.no_grad():
        together = log_likelihood(decoder, encoder.encode(batch, choose(batch)), batch)
        for row, length in enumerate(lengths):
            one = pad(
                [batch.gaps[row, :length].numpy()],
                [batch.types[row, :length].numpy()],
                [batch.elapsed[row, length].item()],
            )
            alone = log_likelihood(decoder, encoder.encode(one, choose(one)), one)
            assert torch.allclose(together[row, : length + 1], alone[0], atol=1e-12)
            assert (together[row, length + 1 :] == 0).all()


@pytest.mark.parametrize("prompted", PROMPTS)
def test_fault_8_a_clock_that_began_earlier_changes_nothing(prompted, monkeypatch):
    """Neither in training nor in prediction is there an absolute time."""
    (encoder, decoder), batch = build(), make_batch([20, 4])
    choice, elapsed = chooser(prompted)(batch), elapsed_of(batch)
    states = encoder.encode(batch, choice)
    likelihood = log_likelihood(decoder, states, batch)
    predicted = decoder.log_intensities(states.at(batch.lengths), elapsed[:, :1])
    turn = encoder._turn
    monkeypatch.setattr(encoder, "_turn", lambda time: turn(time + 5e6))
    states = encoder.encode(batch, choice)
    assert torch.allclose(log_likelihood(decoder, states, batch), likelihood, atol=1e-7)
    later = decoder.log_intensities(states.at(batch.lengths), elapsed[:, :1])
    assert torch.allclose(later, predicted, atol=1e-7)
    # The two would differ if a part of the times were taken from another clock.
    monkeypatch.setattr(encoder, "_turn", turn)
    mixed = decoder.log_intensities(states.at(batch.lengths), elapsed[:, :1])
    assert (mixed - predicted).abs().max() > 1e-3


def test_float32_keeps_its_digits_at_large_times():
    """After a gap of a million mean gaps, the last events are still told apart."""
    encoder, decoder = build()
    rng = np.random.default_rng(3)
    gaps, types = rng.exponential(size=30), rng.integers(0, TYPES, 30)
    gaps[0] = 1e6
    exact = pad([gaps], [types], [1.0])
    elapsed = elapsed_of(exact)
    with torch.no_grad():
        expected = decoder.log_intensities(encoder.encode(exact), elapsed)
        single = pad([gaps], [types], [1.0], dtype=torch.float32)
        encoder, decoder = encoder.float(), decoder.float()
        found = decoder.log_intensities(encoder.encode(single), elapsed.float())
    assert found.dtype == torch.float32
    assert (found - expected).abs().max() < 1e-4


def test_another_unit_of_time_with_its_median():
    gaps, types = np.random.default_rng(0).exponential(size=15), np.arange(15) % TYPES
    plain, scaled = build(), build(median_gap=60.0)
    elapsed = torch.full((1, 16, 1), 0.4).double()
    with torch.no_grad():
        first = plain[0].encode(pad([gaps], [types], [1.0]))
        second = scaled[0].encode(pad([gaps * 60], [types], [60.0]))
        assert torch.allclose(
            plain[1].log_intensities(first, elapsed),
            scaled[1].log_intensities(second, elapsed * 60),
            atol=1e-6,  # the code of the log gap is in float32
        )


@pytest.mark.parametrize("prompted", PROMPTS)
def test_a_stream_equals_encoding_all_of_it(prompted):
    (encoder, decoder), choose = build(), chooser(prompted)
    lengths, more = [9, 0, 4], 5
    batch = make_batch([n + more for n in lengths])
    histories = pad(
        [batch.gaps[row, :n].numpy() for row, n in enumerate(lengths)],
        [batch.types[row, :n].numpy() for row, n in enumerate(lengths)],
        [math.nan] * 3,
    )
    full_choice = choose(batch)
    with torch.no_grad():
        full = encoder.encode(batch, full_choice)
        state, states = encoder.init_state(histories, choose(histories))
        at = torch.tensor(lengths)
        rows = torch.arange(3)
        for _ in range(more):
            elapsed = elapsed_of(batch)[:, :1]
            expected = decoder.log_intensities(full.at(at), elapsed)
            assert torch.allclose(decoder.log_intensities(states, elapsed), expected, atol=1e-12)
            assert torch.allclose(states.hidden, full.at(at).hidden, atol=1e-12)
            kept = [k.clone() for k in state.keys]
            at = at + 1
            choice = None if full_choice is None else full_choice.at(at)
            after, states = encoder.step(
                state, batch.types[rows, at - 1], batch.gaps[rows, at - 1], choice
            )
            assert all(torch.equal(a, b) for a, b in zip(kept, state.keys, strict=True))
            assert after.nbytes > state.nbytes
            state = after


@pytest.mark.parametrize("prompted", PROMPTS)
def test_positions_that_are_picked_out(prompted):
    (encoder, decoder), choose = build(), chooser(prompted)
    batch = make_batch([8, 5])
    elapsed = elapsed_of(batch)
    with torch.no_grad():
        states = encoder.encode(batch, choose(batch))
        everything = decoder.log_intensities(states, elapsed)
        rows, positions = torch.tensor([1, 0, 1, 1]), torch.tensor([3, 8, 0, 5])
        some = states.select(rows, positions)
        picked = decoder.log_intensities(some, elapsed[rows, positions][:, None])
        assert torch.allclose(picked[:, 0], everything[rows, positions], atol=1e-12)
        again = some.select(torch.tensor([2, 0]), torch.tensor([0, 0]))
        picked = decoder.log_intensities(again, elapsed[rows, positions][[2, 0]][:, None])
        assert torch.allclose(picked[:, 0], everything[rows, positions][[2, 0]], atol=1e-12)


def test_blocks_change_nothing(monkeypatch):
    (encoder, decoder), choose = build(), choosing()
    batch = make_batch([13, 6])
    elapsed = elapsed_of(batch, nodes=5)
    with torch.no_grad():
        states = encoder.encode(batch, choose(batch))
        whole = decoder.log_intensities(states, elapsed)
        for size in (1, 700, BLOCK):
            monkeypatch.setattr("tsllm.adapters.events.decoders.attnhp.BLOCK", size)
            states = encoder.encode(batch, choose(batch))
            assert torch.allclose(decoder.log_intensities(states, elapsed), whole, atol=1e-13)


def test_gradients_reach_every_parameter_and_none_comes_from_padding():
    (encoder, decoder), choose = build(), choosing()
    lengths = [12, 3]
    batch = make_batch(lengths)
    choice = choose(batch)
    gradients = []
    modules = torch.nn.ModuleList([encoder, decoder])
    for rows in ([0, 1], None):
        modules.zero_grad()
        if rows is None:
            total = 0
            for row, length in enumerate(lengths):
                one = pad(
                    [batch.gaps[row, :length].numpy()],
                    [batch.types[row, :length].numpy()],
                    [batch.elapsed[row, length].item()],
                )
                total = total + log_likelihood(decoder, encoder.encode(one, choose(one)), one).sum()
        else:
            total = log_likelihood(decoder, encoder.encode(batch, choice), batch).sum()
        total.backward()
        gradients.append({k: p.grad.clone() for k, p in modules.named_parameters()})
    for name, gradient in gradients[0].items():
        assert gradient.isfinite().all(), name
        assert gradient.abs().max() > 0, name
        assert torch.allclose(gradient, gradients[1][name], atol=1e-10), name


def test_gradients_reach_the_prompts_that_were_chosen():
    encoder, decoder = build()
    choose, batch = choosing(slots=8, top_slots=1), make_batch([3])
    choice = choose(batch)
    rows = choice.rows.detach().requires_grad_()
    choice = replace(choice, rows=rows)
    log_likelihood(decoder, encoder.encode(batch, choice), batch).sum().backward()
    used = choice.visible.any(1)[0]  # (slots,)
    assert not used.all()
    for slot, chosen in enumerate(used.tolist()):
        # The last layer's too: queries see them, though no later event does.
        assert (rows.grad[slot].abs().amax((0, 2, 3)) > 0).all() == chosen


def test_the_next_event_of_an_attnhp():
    (encoder, decoder), batch = build(), make_batch([8, 3])
    with torch.no_grad():
        states = encoder.encode(batch).at(batch.lengths)
    found = next_event(decoder, states, waited=torch.tensor([0.0, 2.0]), levels=[0.1, 0.9])
    assert (found.quantiles[:, 0] < found.median).all()
    assert (found.median < found.quantiles[:, 1]).all()
    with torch.no_grad():
        log_survival = decoder.log_survival(states, found.median[:, None, None])[:, 0, 0]
        waited = torch.tensor([[[0.0]], [[2.0]]]).double()
        log_survival = log_survival - decoder.log_survival(states, waited)[:, 0, 0]
    assert log_survival.exp().tolist() == pytest.approx([0.5, 0.5], abs=1e-6)


def test_before_the_first_event_the_intensity_is_constant():
    """Position 0 sees the start token alone, which has no time."""
    encoder, decoder = build()
    states = encoder.encode(make_batch([0]))
    values = decoder.log_intensities(states, torch.tensor([[[0.1, 5.0]]]).double())
    assert torch.allclose(values[:, :, 0], values[:, :, 1], atol=1e-14)


def test_what_does_not_fit():
    embedding = EventEmbedding(TYPES, HIDDEN)
    with pytest.raises(ValueError, match="hidden=16 must be a multiple of heads=3"):
        AttNHPEncoder(embedding, heads=3)
    with pytest.raises(ValueError, match="layers must be at least 1"):
        AttNHPEncoder(embedding, layers=0)
    with pytest.raises(ValueError, match="time_width must be even"):
        AttNHPEncoder(embedding, time_width=3)
    with pytest.raises(ValueError, match="states have none: use both together"):
        AttNHPDecoder(HIDDEN, TYPES).log_intensities(
            EventStates(torch.zeros(1, 1, HIDDEN)), torch.ones(1, 1, 1)
        )


def test_growing_keeps_what_is_known_of_the_old_types():
    (encoder, decoder), batch = build(), make_batch([5])
    elapsed = elapsed_of(batch)
    with torch.no_grad():
        states = encoder.encode(batch)
        before = decoder.log_intensities(states, elapsed)
        decoder.grow_types(TYPES + 2)
        after = decoder.log_intensities(states, elapsed)
    assert after.shape[-1] == TYPES + 2
    assert torch.allclose(after[..., :TYPES], before)


@pytest.mark.parametrize("prompted", [False, True])
@pytest.mark.parametrize("lengths", [(3, 9, 16), (70, 20)])
def test_plain_products_and_the_fused_kernel_agree_in_value_and_gradient(
    prompted, lengths, monkeypatch
):
    (encoder, decoder), choose = build(), chooser(prompted)
    batch, found = make_batch(lengths), []
    for short in (0, 1000):
        monkeypatch.setattr("tsllm.adapters.events.decoders.attnhp.SHORT", short)
        values = log_likelihood(decoder, encoder.encode(batch, choose(batch)), batch)
        encoder.zero_grad()
        values.sum().backward()
        found.append((values.detach(), encoder.embedding.types.grad.clone()))
    torch.testing.assert_close(found[0], found[1], rtol=1e-9, atol=1e-9)


def test_the_likelihood_is_that_of_the_intensities():
    encoder, decoder = build()
    batch = make_batch((4, 9))
    states = encoder.encode(batch)
    density, survival = decoder.log_density_and_survival(
        states, batch.elapsed[..., None], batch.next_types
    )
    torch.testing.assert_close(survival, decoder.log_survival(states, batch.elapsed[..., None]))
    at_events = decoder.log_intensities(states, batch.elapsed[..., None])[:, :, 0]
    chosen = at_events.gather(-1, batch.next_types[..., None])
    torch.testing.assert_close(density, chosen + survival)
