"""What every encoder of events keeps to, with prompts and without: causality, batches, streams."""

import dataclasses

import numpy as np
import pytest
import torch
from event_models import ENCODERS, N_TYPES, batch_of, build_model, language_model, sequences

from tsllm.adapters.events.encoders.attention import QUERY_BLOCK
from tsllm.adapters.events.encoders.llm import EventTokens, LLMEncoder
from tsllm.adapters.events.prompt_pool import PromptChoice
from tsllm.backbone import load_backbone, tuned

SLOTS = [0, 3]


def choices_divide(model, batch):
    """Return True if positions of one sequence take different slots."""
    visible = model.retrieve(batch).visible
    return bool((visible != visible[:, -1:]).any())


def largest(difference):
    return float(difference.detach().abs().max())


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_no_later_event_leaks_through_a_mask_that_the_prompts_shift(name, slots):
    model = build_model(name, slots=slots)
    rows = sequences(3, 20)
    batch = batch_of(rows)
    assert not slots or choices_divide(model, batch)
    other = [
        (np.concatenate([gaps[:12], gaps[12:] * 7 + 1]), np.append(types[:12], 3 - types[12:]))
        for gaps, types in rows
    ]
    changed = batch_of(other)
    with torch.no_grad():
        before, after = model.encode(batch).hidden, model.encode(changed).hidden
        assert largest(before[:, :13] - after[:, :13]) <= 1e-6
        assert largest(before[:, 13:] - after[:, 13:]) > 1e-3
        # The interval after event 12 ends differently; those before it are scored alike.
        scores, others = model.log_likelihood(batch), model.log_likelihood(changed)
        error = (scores - others)[:, :12] / scores[:, :12].abs().clamp_min(1)
        assert largest(error) <= 1e-6


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_batch_of_one_a_batch_of_many_and_other_padding_give_the_same(name, slots):
    model = build_model(name, slots=slots)
    rows = sequences(4, [17, 3, 0, 9])
    known = np.array([True, False, True, True])
    with torch.no_grad():
        together = model.log_likelihood(batch_of(rows, known=known))
        longer = model.log_likelihood(batch_of([*rows, *sequences(1, 31)], known=[*known, True]))
        backwards = model.log_likelihood(batch_of(rows[::-1], known=known[::-1]))
        for i, row in enumerate(rows):
            alone = model.log_likelihood(batch_of([row], known=known[i]))[0]
            positions = len(row[0]) + 1
            for other in (together[i], longer[i], backwards[3 - i]):
                assert largest(alone - other[:positions]) <= 1e-5
                assert (other[positions:] == 0).all()


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_a_stream_gives_what_encoding_it_all_gives(name, slots):
    model = build_model(name, slots=slots, head_rank=0 if name == "attnhp" else 2)
    for slot in model.pool.slots:
        if slot.head_up is not None:
            torch.nn.init.normal_(slot.head_up)
    rows = sequences(4, 26)
    known = np.array([True, False, True, False])
    whole = batch_of(rows, known=known)
    assert not slots or choices_divide(model, whole)
    starts = torch.tensor([4, 0, 11, 1])  # of very different lengths, one without an event
    every = torch.arange(4)
    histories = [(g[:n], k[:n]) for (g, k), n in zip(rows, starts.tolist(), strict=True)]
    with torch.no_grad():
        expected = model.encode(whole).hidden
        stream, states = model.init_state(batch_of(histories, known=known))
        assert largest(states.hidden[:, 0] - expected[every, starts]) <= 1e-5
        first = stream
        for i in range(15):
            at = starts + i
            stream, states = model.step(stream, whole.types[every, at], whole.gaps[every, at])
            assert largest(states.hidden[:, 0] - expected[every, at + 1]) <= 1e-5
        # A stream is a value: the first one can be continued again.
        _, states = model.step(first, whole.types[every, starts], whole.gaps[every, starts])
        assert largest(states.hidden[:, 0] - expected[every, starts + 1]) <= 1e-5


@pytest.mark.parametrize("name", ["attnhp", "attention"])
def test_the_states_of_a_stream_decode_like_those_of_an_encoding(name):
    model = build_model(name, slots=3)
    whole = batch_of(sequences(2, 9))
    histories = batch_of([(g[:8], k[:8]) for g, k in sequences(2, 9)])
    elapsed = torch.tensor([0.1, 1.0, 4.0]).expand(2, 1, 3)
    with torch.no_grad():
        stream, _ = model.init_state(histories)
        _, states = model.step(stream, whole.types[:, 8], whole.gaps[:, 8])
        expected = model.encode(whole).at(torch.tensor([9, 9]))
        ours = model.decoder.log_intensities(states, elapsed)
        assert largest(ours - model.decoder.log_intensities(expected, elapsed)) <= 1e-5


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ["aaren", "llm aaren"])
def test_aaren_continues_a_stream_by_many_events_and_in_constant_memory(name, slots):
    model = build_model(name, slots=slots)
    rows = sequences(2, 40)
    whole = batch_of(rows, known=False)
    stream, _ = model.init_state(batch_of([(g[:3], k[:3]) for g, k in rows], known=False))
    size = stream.nbytes
    mask = torch.ones(2, 30, dtype=torch.bool)
    mask[1, 20:] = False
    stream, states = model.extend(stream, whole.types[:, 3:33], whole.gaps[:, 3:33], mask=mask)
    with torch.no_grad():
        expected = model.encode(whole).hidden[[0, 1], [33, 23]]
    assert largest(states.hidden[:, 0] - expected) <= 1e-5
    assert stream.nbytes == size
    stream, states = model.step(stream, whole.types[:, 33], whole.gaps[:, 33])
    assert largest(states.hidden[0, 0] - model.encode(whole).hidden[0, 34]) <= 1e-5
    assert stream.nbytes == size


def test_an_aaren_stream_of_many_events_loses_nothing():
    model = build_model("aaren", slots=2)
    rows = sequences(1, 2000)
    whole = batch_of(rows)
    stream, _ = model.init_state(batch_of([(rows[0][0][:0], rows[0][1][:0])]))
    size = stream.nbytes
    for part in (slice(0, 7), slice(7, 1500), slice(1500, 2000)):
        stream, states = model.extend(stream, whole.types[:, part], whole.gaps[:, part])
    with torch.no_grad():
        assert largest(states.hidden[0, 0] - model.encode(whole).hidden[0, -1]) <= 1e-5
    assert stream.nbytes == size
    assert all(part.dtype == torch.float64 for state in stream.encoder.layers for part in state)


@pytest.mark.parametrize("name", ["attention", "attnhp", "llm-full"])
def test_only_aaren_continues_by_many_events_at_once(name):
    model = build_model(name)
    batch = batch_of(sequences(1, 3))
    stream, _ = model.init_state(batch)
    with pytest.raises(ValueError, match="only the encoder 'aaren'"):
        model.extend(stream, batch.types, batch.gaps)


@pytest.mark.parametrize("name", ENCODERS)
def test_the_unit_of_time_only_shifts_the_score(name):
    # Scaled by the mean gap, the model sees the same gaps; the density alone has a unit.
    model = build_model(name, slots=2)
    gaps, types = sequences(1, 15)[0]
    scores = []
    for unit in (1.0, 3600.0):
        scale = (gaps * unit).mean()
        batch = batch_of([(gaps * unit / scale, types)], tails=0.5)
        with torch.no_grad():
            total = model.log_likelihood(batch).sum() - batch.events_scored * np.log(scale)
        scores.append(float(total))
    assert scores[1] == pytest.approx(scores[0] - 15 * np.log(3600.0), abs=1e-4)


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_types_by_other_names_have_the_same_scores(name, slots):
    model = build_model(name, slots=slots)
    order = torch.tensor([2, 0, 3, 1])  # new name of old type i
    batch = batch_of(sequences(3, 14))
    renamed = dataclasses.replace(
        batch, types=order[batch.types], next_types=order[batch.next_types]
    )
    expected = model.log_likelihood(batch)
    permuted = 0
    with torch.no_grad():
        for path, tensor in [*model.named_parameters(), *model.named_buffers()]:
            # What has a row a type: embeddings, texts, logits and their biases, query codes.
            by_type = path.endswith(("types", "table", "codes", "type_head.bias", "base", "decay"))
            by_type |= path.endswith(("type_head.weight", "decoder.head.weight"))
            by_type |= path.endswith("decoder.head.bias")
            if by_type:
                assert len(tensor) == N_TYPES
                tensor[order] = tensor.clone()
                permuted += 1
    assert permuted >= 3
    assert largest(model.log_likelihood(renamed) - expected) <= 1e-5


@pytest.mark.parametrize("slots", SLOTS)
@pytest.mark.parametrize("name", ENCODERS)
def test_all_parameters_get_finite_gradients_that_are_not_zero(name, slots):
    """None is declared and not used, as 'CDE' and the frozen backbone were."""
    of_prompts = ("prompt_", "time_key_layer", "time_value_layer")  # the temporal part's
    model = build_model(name, slots=slots).train()
    active = [0] if slots else []
    model.train_only(base=True, slots=active)
    total, count, _ = model.loss(batch_of(sequences(4, [25, 13, 1, 20])), active or None)
    (total / count).backward()
    for path, parameter in model.named_parameters():
        if not parameter.requires_grad or (slots == 0 and any(part in path for part in of_prompts)):
            assert parameter.grad is None
        elif not path.endswith("key_layer.bias"):  # the same to all keys, which softmax ignores
            assert parameter.grad.isfinite().all(), path
            assert parameter.grad.abs().max() > 0, path


@pytest.mark.parametrize("name", ENCODERS)
def test_a_pool_without_slots_is_the_base_exactly(name):
    batch = batch_of(sequences(2, 12))
    with_pool, without = build_model(name), build_model(name, prompt_mode="none")
    assert with_pool.retrieve(batch) is None
    without.load_state_dict(with_pool.state_dict())
    assert torch.equal(with_pool.log_likelihood(batch), without.log_likelihood(batch))


@pytest.mark.parametrize("name", ENCODERS)
def test_choosing_all_slots_is_no_mask_at_all(name):
    model = build_model(name, slots=3, top_slots=3)
    batch = batch_of(sequences(2, 12))
    choice = model.retrieve(batch)
    assert choice.visible.all()
    unmasked = PromptChoice(
        choice.rows, torch.ones_like(choice.visible), choice.mean_gap, choice.numbers
    )
    with torch.no_grad():
        expected = model.encoder.encode(batch, unmasked).hidden
        assert torch.equal(model.encode(batch).hidden, expected)
        # And the order of slots does not matter then.
        back = PromptChoice(
            choice.rows.flip(0), unmasked.visible, choice.mean_gap, choice.numbers[::-1]
        )
        assert largest(model.encoder.encode(batch, back).hidden - expected) <= 1e-6


@pytest.mark.parametrize("name", ENCODERS)
def test_the_prompts_seen_are_those_chosen_and_no_others(name):
    """Keys and values of a prefix come from one slot, not from two pools with keys of their own."""
    model = build_model(name, slots=3)
    batch = batch_of(sequences(3, 20))
    with torch.no_grad():
        before = model.encode(batch).hidden
        visible = model.retrieve(batch).visible
        assert choices_divide(model, batch)
        number = int(visible.sum((0, 1)).argmax())
        visible = visible[..., number]
        # Both the rows for keys and those for values of one slot.
        for part in range(model.encoder.prompt_parts):
            changed = build_model(name, slots=3)
            changed.load_state_dict(model.state_dict())
            changed.pool.slots[number].rows[part].normal_()
            difference = (changed.encode(batch).hidden - before).abs().amax(-1)
            touched = visible.long().cumsum(1) > 0  # an earlier position may be read later
            assert (difference[visible] > 1e-5).any()
            assert (difference[~touched] <= 1e-6).all()


def naive_attention(attention, x, rows, code, time):
    """Concatenate [structural; temporal] prompts with tokens, position by position, in float64."""
    heads, width = attention.heads, attention.width
    time_layer = attention.prompt_time
    outputs = []
    for i in range(x.shape[0]):
        prompts = [torch.cat([row, code[i].expand(len(row), -1)], -1) for row in rows]
        joined = []
        pairs = (
            (attention.key_layer, time_layer.key_layer, prompts[0]),
            (attention.value_layer, time_layer.value_layer, prompts[1]),
        )
        for layer, temporal, prompt in pairs:
            both = torch.cat([layer.weight, temporal.weight], 1)  # [W_s, W_t]
            of_prompt = prompt @ both.T + layer.bias
            joined.append(torch.cat([of_prompt, layer(x[: i + 1])]).unflatten(-1, (heads, width)))
        keys, values = joined
        query = attention.query_layer(x[i]).unflatten(-1, (heads, width))
        logits = torch.einsum("hw,nhw->hn", query, keys) / width**0.5
        rates = torch.nn.functional.softplus(attention.decay_logit)
        logits[:, len(rows[0]) :] -= rates[:, None] * (time[i] - time[: i + 1])
        outputs.append(torch.einsum("hn,nhw->hw", logits.softmax(-1), values).flatten())
    return attention.out_layer(torch.stack(outputs))


@pytest.mark.parametrize("tokens", [9, QUERY_BLOCK + 3])
def test_temporal_prompts_by_addition_equal_naive_concatenation(tokens):
    model = build_model("attention", slots=2)
    batch = batch_of(sequences(1, tokens - 1))
    attention = model.encoder.blocks[1].attention.double()
    choice = model.retrieve(batch, [1])
    x = torch.randn(1, tokens, 8, dtype=torch.float64)
    time = torch.nn.functional.pad(batch.gaps.double().cumsum(1), (1, 0))
    code = model.encoder.embedding.time_encoding(choice.mean_gap).double()
    choice = dataclasses.replace(choice, rows=choice.rows.double())
    with torch.no_grad():
        ours = attention(x, time, attention.project_prompts(choice, 1, code))
        rows = choice.rows[0, :, 1]
        assert largest(ours[0] - naive_attention(attention, x[0], rows, code[0], time[0])) <= 1e-6


def test_aaren_merges_prompts_as_tokens_that_do_not_age():
    model = build_model("aaren", slots=2)
    batch = batch_of(sequences(1, 11))
    mixer = model.encoder.blocks[0].mixer.double()
    choice = model.retrieve(batch)
    choice = dataclasses.replace(choice, rows=choice.rows.double())
    x = torch.randn(1, 12, 8, dtype=torch.float64)
    elapsed = torch.nn.functional.pad(batch.gaps.double(), (1, 0))
    code = model.encoder.embedding.time_encoding(choice.mean_gap).double()
    time, rates = elapsed.cumsum(1)[0], mixer.decay_rates()
    weight, _ = mixer.folded_weight()
    with torch.no_grad():
        ours, _ = mixer.mix(x, elapsed, mixer.fold_prompts(choice, 0, code))
        for i in range(12):
            seen = choice.visible_rows[0, i]
            scores = torch.cat(
                [
                    choice.key_rows(0)[seen] @ weight.T + mixer.prompt_score_layer(code[0, i]),
                    x[0, : i + 1] @ weight.T - (time[i] - time[: i + 1])[:, None] * rates,
                ]
            )
            values = torch.cat(
                [
                    mixer.value_layer(choice.value_rows(0)[seen])
                    + mixer.prompt_value_layer(code[0, i]),
                    mixer.value_layer(x[0, : i + 1]),
                ]
            ).unflatten(-1, (2, 4))
            mixed = torch.einsum("nh,nhw->hw", scores.softmax(0), values).flatten()
            assert largest(ours[0, i] - mixer.out_layer(mixed)) <= 1e-9


@pytest.mark.parametrize(
    "family", ["llama", "bert", "opt", "gemma", "mistral", "gpt_neox", "qwen3"]
)
def test_other_language_models_read_events_and_stream_them(family):
    backbone = load_backbone(f"random:{family}?hidden=16&layers=1&heads=2&seed=0", device="cpu")
    model = build_model("llm-full short", slots=2, backbone=backbone)
    whole = batch_of(sequences(2, 14))
    other = batch_of([(np.append(g[:9], g[9:] + 3), k) for g, k in sequences(2, 14)])
    stream, _ = model.init_state(batch_of([(g[:4], k[:4]) for g, k in sequences(2, 14)]))
    with torch.no_grad():
        expected = model.encode(whole).hidden
        assert largest(model.encode(other).hidden[:, :10] - expected[:, :10]) <= 1e-6
        for i in range(4, 14):
            stream, states = model.step(stream, whole.types[:, i], whole.gaps[:, i])
            assert largest(states.hidden[:, 0] - expected[:, i + 1]) <= 1e-5


def test_a_language_model_reads_the_last_events_when_its_positions_are_used_up():
    model = build_model("llm-full short")  # 5 events at once
    gaps, types = sequences(1, 12)[0]
    with torch.no_grad():
        states = model.encode(batch_of([(gaps, types)])).hidden[0]
        # After event 6 reading started again from event 4, after event 9 from event 7.
        for position, first in ((5, 0), (6, 3), (8, 3), (9, 6), (11, 6), (12, 9)):
            part = slice(first, position)
            alone = model.encode(batch_of([(gaps[part], types[part])])).hidden[0, -1]
            assert largest(states[position] - alone) <= 1e-5


def test_a_private_language_model_is_trained_with_the_base():
    private = tuned(language_model(), lora={"r": 2})
    model = build_model("llm-full", slots=1, backbone=private)
    trained = {id(parameter) for parameter in model.base_parameters()}
    assert {id(parameter) for parameter in private.parameters()} <= trained
    model.loss(batch_of(sequences(2, 6)), [0])[0].backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in private.parameters())


def test_a_stream_whose_prompts_changed_is_refused_by_the_language_model():
    model = build_model("llm-full", slots=1)
    batch = batch_of(sequences(1, 5))
    stream, _ = model.init_state(batch)
    model.open_slots(torch.zeros(1, 16))
    with pytest.raises(ValueError, match=r"1 prompt slots, and there are 2.*init_state"):
        model.step(stream, batch.types[:, 0], batch.gaps[:, 0])


@pytest.mark.parametrize("max_events", [1, 600])
def test_more_events_than_there_are_positions_for_are_refused(max_events):
    backbone = language_model()
    tokens = EventTokens(1.0, torch.randn(2, 16), time_features=8)
    most = (backbone.max_positions - 5 - 1) // 2
    with pytest.raises(ValueError, match=f"max_events={max_events} must be from 2 to the {most}"):
        LLMEncoder(backbone, 8, tokens, prompt_length=5, max_events=max_events)
    with pytest.raises(ValueError, match="use a shorter prompt"):
        LLMEncoder(backbone, 8, tokens, prompt_length=backbone.max_positions)
