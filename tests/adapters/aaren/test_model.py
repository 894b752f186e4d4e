"""The Aaren forecaster's module: contexts and streams agree, units, masks, the language model."""

import copy
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.adapters.aaren.model import STEPWISE, AarenModel, prefix_loss
from tsllm.adapters.aaren.patches import RunningScale
from tsllm.adapters.aaren.soft_prompt import SoftPromptReader
from tsllm.adapters.aaren.state import AarenStream
from tsllm.backbone import load_backbone

VARIANTS = [
    {},
    {"normalisation": "anchored", "quantiles": (0.1, 0.5, 0.9)},
    {"mixer": "mingru"},
    {"decay": False, "query": "token"},
    {"mixer": "none"},
    {"flip_invariance": True, "quantiles": (0.1, 0.5, 0.9)},
]


def build(backbone=None, **changes):
    torch.manual_seed(0)
    settings_ = {"hidden": 8, "heads": 2, "feedforward": 8, "half_life": 20, **changes}
    return AarenModel(backbone, 4, 6, **settings_).eval()


def series(rows, steps, seed=0):
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(rows, steps)).cumsum(1) + 50
    return torch.from_numpy(walk)


# ---------------------------------------------------------------- streams


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
@pytest.mark.parametrize("steps", [40, 36, 39, 33])
def test_a_stream_forecasts_what_its_whole_context_does(changes, steps):
    model, x = build(**changes), series(3, steps)
    x[1, 5:14] = torch.nan  # a missing patch among them
    stream = model.exact().advance(model.exact().empty_stream(3), x)
    read = model.exact().forecast(stream, 6)
    # The last patch may be incomplete: the module is told how much of it is there.
    x = torch.nn.functional.pad(x, (0, -steps % 4), value=torch.nan)
    fill = torch.full((3,), 4 - -steps % 4)
    # (rows, 6, 1[, levels])
    expected = model(x[..., None].float(), mask=~x.isnan()[..., None], fill=fill)
    levels = expected[:, :, 0] if model.quantiles else expected
    torch.testing.assert_close(read[..., 1:] if model.quantiles else read, levels.double(),
                               rtol=1e-5, atol=1e-4)  # fmt: skip


@pytest.mark.parametrize("changes", [*VARIANTS, {"restart": 5}], ids=str)
@given(cuts=st.lists(st.integers(0, 130), max_size=6), seed=st.integers(0, 50))
@settings(max_examples=12, deadline=None)
@pytest.mark.long
def test_updates_of_any_length_make_the_same_stream(changes, cuts, seed):
    model, x = build(**changes).exact(), series(2, 130, seed)
    x[0, seed : seed + 9] = torch.nan
    whole = model.advance(model.empty_stream(2), x)
    stream, borders = model.empty_stream(2), [0, *sorted(cuts), 130]
    for first, end in pairwise(borders):
        stream = model.advance(stream, x[:, first:end])
    torch.testing.assert_close(
        model.forecast(stream, 15), model.forecast(whole, 15), rtol=1e-11, atol=1e-11
    )
    assert stream.tokens[:: model.ways].tolist() == [32, 32]
    assert stream.fill[:: model.ways].tolist() == [2, 2]


@pytest.mark.parametrize("changes", [{}, {"restart": 3}, {"flip_invariance": True}], ids=str)
def test_streams_of_all_lengths_stand_in_one_batch(changes):
    model = build(**changes).exact()
    lengths = [0, 1, 4, 7, 33, 90]
    rows = [series(1, n + 11, seed=n) for n in lengths]
    alone = [
        model.advance(model.advance(model.empty_stream(1), x[:, :n]), x[:, n:])
        for x, n in zip(rows, lengths)
    ]
    longest = max(lengths)
    padded = torch.full((len(rows), longest), torch.nan, dtype=torch.float64)
    for row, x, n in zip(padded, rows, lengths):
        row[:n] = x[0, :n]
    together = model.advance(model.empty_stream(len(rows)), padded, torch.tensor(lengths))
    news = torch.cat([x[:, n:] for x, n in zip(rows, lengths)])
    together = model.advance(together, news)
    expected = torch.cat([model.forecast(stream, 9) for stream in alone])
    torch.testing.assert_close(model.forecast(together, 9), expected, rtol=1e-11, atol=1e-11)
    for one, part in zip(alone, together.split([model.ways] * len(rows))):
        torch.testing.assert_close(model.forecast(part, 9), model.forecast(one, 9))


def test_an_update_at_once_is_single_updates_bit_for_bit():
    model, x = build().exact(), series(2, 60)
    stream = start = model.advance(model.empty_stream(2), x[:, :21])
    for step in range(21, 60):
        stream = model.advance(stream, x[:, step : step + 1])
    at_once = model.advance(start, x[:, 21:])
    assert STEPWISE >= (60 - 21) // 4
    for one, other in zip(stream.state_dict().values(), at_once.state_dict().values()):
        assert torch.equal(one.nan_to_num(), other.nan_to_num())


def test_nothing_that_is_given_changes():
    model, x = build().exact(), series(2, 50)
    stream = model.advance(model.empty_stream(2), x)
    before = copy.deepcopy(stream.state_dict())
    model.advance(stream, x)
    model.forecast(stream, 30)
    assert all(torch.equal(before[k].nan_to_num(), v.nan_to_num())
               for k, v in stream.state_dict().items())  # fmt: skip


def test_a_stream_stays_as_large_as_it_began():
    model = build(restart=6).exact()
    stream = model.empty_stream(2)
    size = stream.nbytes
    for seed in range(4):
        stream = model.advance(stream, series(2, 333, seed))
        alone = stream.split([2])[0].state_dict().values()
        stored = sum(tensor.untyped_storage().nbytes() for tensor in alone)
        assert stream.nbytes == stored == size


def test_streams_go_through_tensors_by_name():
    model = build(restart=6).exact()
    stream = model.advance(model.empty_stream(3), series(3, 77))
    again = AarenStream.from_state_dict(stream.state_dict())
    joined = AarenStream.cat(again.to("cpu").split([1, 2]))
    assert torch.equal(model.forecast(joined, 6), model.forecast(stream, 6))


@pytest.mark.parametrize("quantiles", [(), (0.1, 0.5, 0.9)])
def test_a_stream_turned_upside_down_has_its_forecast_turned_upside_down(quantiles):
    x = series(3, 41)
    forecasts = []
    for values in (x, -x):
        model = build(flip_invariance=True, quantiles=quantiles).exact()
        forecasts.append(model.forecast(model.advance(model.empty_stream(3), values), 15))
    upright, over = forecasts  # (rows, 15, 1 + levels)
    torch.testing.assert_close(over[..., 0], -upright[..., 0])
    torch.testing.assert_close(over[..., 1:], -upright[..., 1:].flip(-1))
    plain = build(quantiles=quantiles).exact()
    plain = plain.forecast(plain.advance(plain.empty_stream(3), x), 15)
    assert not torch.allclose(plain, upright)


def test_levels_that_do_not_mirror_are_refused():
    with pytest.raises(ValueError, match=r"mirror around 0\.5"):
        build(flip_invariance=True, quantiles=(0.2, 0.5, 0.9))


def test_a_restarted_stream_forgets_what_is_two_windows_old():
    model = build(restart=5, normalisation="anchored", half_life=0.2).exact()
    x = series(1, 4 * 15)
    other = x.clone()
    # Well before the restart at token 5, whose state is read from token 10 on.
    other[:, :16] += torch.randn(16)

    def states(values):
        stream = model.advance(model.empty_stream(1), values)
        return torch.cat([state.average().flatten() for state in stream.layers])

    assert not torch.allclose(states(other[:, :39]), states(x[:, :39]), atol=1e-3)
    torch.testing.assert_close(states(other), states(x), rtol=0, atol=1e-3)


# ---------------------------------------------------------------- units and masks


@pytest.mark.parametrize("normalisation", ["causal", "anchored"])
@pytest.mark.parametrize(("factor", "shift"), [(1e-6, 0.0), (1e6, 0.0), (1.0, 1e8)])
def test_forecasts_follow_the_units(normalisation, factor, shift):
    model, x = build(normalisation=normalisation).exact(), series(2, 70)

    def forecast(values):
        return model.forecast(model.advance(model.empty_stream(2), values), 9)

    moved = forecast(x * factor + shift)
    torch.testing.assert_close((moved - shift) / factor, forecast(x), rtol=1e-5, atol=1e-5)


@given(forget=st.floats(0.5, 1.0), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_running_statistics_against_weighted_sums(forget, seed):
    rng = np.random.default_rng(seed)
    patches = rng.normal(3, 2, (1, 9, 4)) * 10.0 ** rng.integers(-3, 4) + 1e4
    seen = rng.random((1, 9, 4)) > 0.4
    running, known = RunningScale.empty(1).over(
        torch.from_numpy(np.where(seen, patches, np.nan)), torch.from_numpy(seen), forget
    )
    for k in range(9):
        some = seen[0, : k + 1]
        if not some.any():
            assert running.weight[0, k] == 0
            continue
        # A patch without observations ages nothing.
        ages = np.array([some[j + 1 :].any(1).sum() for j in range(k + 1)])
        weights = np.where(some, forget ** ages[:, None], 0.0)
        values = np.where(some, patches[0, : k + 1], 0.0)
        mean = (weights * values).sum() / weights.sum()
        variance = (weights * (values - mean) ** 2).sum() / weights.sum()
        np.testing.assert_allclose(running.mean[0, k], mean, rtol=1e-12)
        spread = np.sqrt(variance) if np.sqrt(variance) > 1e-12 * abs(mean) else 0.0
        np.testing.assert_allclose(running.deviation()[0, k], spread, rtol=1e-5, atol=1e-11 * mean)
        assert running.last[0, k] == patches[0, : k + 1][some][-1]
        assert known[0, k] == seen[0, :k].any()


@pytest.mark.parametrize("value", [0.1, 7.0, 1e9 / 3])
@pytest.mark.parametrize("normalisation", ["causal", "anchored"])
def test_a_constant_is_forecast_to_the_last_bit(value, normalisation):
    model = build(normalisation=normalisation).exact()
    stream = model.advance(model.empty_stream(1), torch.full((1, 43), value, dtype=torch.float64))
    assert (model.forecast(stream, 14) == value).all()
    assert model.statistics(stream)[0].item() == 0


def test_what_a_masked_step_holds_has_no_influence():
    model, x = build(), series(2, 24)[..., None].float()
    mask = torch.rand(x.shape) > 0.3
    out = model(x, mask=mask)
    assert torch.equal(out, model(torch.where(mask, x, 1e9), mask=mask))
    assert out.isfinite().all()


@pytest.mark.parametrize("changes", [*VARIANTS, {"mixer": "attention"}], ids=str)
def test_forecasts_after_each_patch_are_those_of_the_shorter_contexts(changes):
    model, x = build(**changes), series(2, 24)[..., None].float()
    x = torch.cat([x, 2 * x + 3], -1)  # two channels
    prefixes = model(x, prefixes=True)  # (batch, tokens, horizon, channels[, levels])
    for k in range(6):
        alone = model(x[:, : 4 * (k + 1)])
        torch.testing.assert_close(prefixes[:, k], alone, rtol=1e-4, atol=1e-4)


def test_the_loss_counts_each_observed_target_of_each_prefix():
    model, values = build(), series(2, 12 + 6)[..., None].float()
    mask = torch.ones_like(values, dtype=torch.bool)
    mask[0, :3] = False
    mask[1, 15] = False
    fill = torch.tensor([2, 4])
    total, count = prefix_loss(model, values, mask, loss="mae", fill=fill, last_weight=2.0)
    expected, weights = 0.0, 0.0
    for row in range(2):
        for k in range(3):
            end = 4 * (k + 1) - (0 if k < 2 else 4 - int(fill[row]))
            context = values[row : row + 1, : 4 * (k + 1)]
            seen = mask[row : row + 1, : 4 * (k + 1)].clone()
            seen[:, end:] = False
            there = torch.tensor([4 - 4 * (k + 1) + end])
            forecast = model(context, mask=seen, fill=there)[0, :, 0]
            target, counted = values[row, end : end + 6, 0], mask[row, end : end + 6, 0]
            weight = 2.0 if k == 2 else 1.0
            expected += weight * (forecast - target).abs()[counted].sum()
            weights += weight * counted.sum()
    torch.testing.assert_close(total, expected, rtol=1e-4, atol=1e-3)
    assert count == weights


# ---------------------------------------------------------------- the language model


@pytest.fixture(scope="module")
def gpt():
    return load_backbone("random:gpt2?hidden=16&layers=2&heads=2&positions=64", device="cpu")


def opened(reader):
    """Let the language model have a say."""
    torch.manual_seed(1)
    torch.nn.init.normal_(reader.out_layer.weight, std=0.5)
    return reader


def test_soft_tokens_are_read_behind_the_prompt(gpt):
    torch.manual_seed(0)
    reader = opened(SoftPromptReader(gpt, 8, 3, "Up or down?")).eval()
    x = torch.randn(2, 5, 8)
    ids = gpt.tokenizer("Up or down?", add_special_tokens=False)["input_ids"]
    words = gpt.word_embeddings[torch.tensor(ids)]
    for first, end in ((0, 3), (3, 5)):
        some = x[:, first:end]
        tokens = torch.cat([words.expand(2, -1, -1), reader.in_layer(some)], 1)
        states = gpt.hidden(tokens).states[:, len(words) :]
        torch.testing.assert_close(reader(x)[:, first:end], some + reader.out_layer(states))
    # Fewer vectors than the others have: as if alone.
    last = reader.last(x[:, :3], torch.tensor([3, 1]))
    torch.testing.assert_close(last[0], reader(x[:1, :3])[0, -1])
    torch.testing.assert_close(last[1], reader(x[1:, 2:3])[0, -1])


def test_the_prompt_is_computed_once(gpt, monkeypatch):
    reader = opened(SoftPromptReader(gpt, 8, 3, "Up or down?")).eval()
    calls = []
    real = type(gpt).hidden

    def counted(self, inputs, past=None, **options):
        calls.append(inputs.shape[1])
        return real(self, inputs, past, **options)

    monkeypatch.setattr(type(gpt), "hidden", counted)
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        first = reader(x)
        assert torch.equal(reader(x), first)  # reading writes nothing into what is kept
    assert calls == [11, 3, 3]
    assert copy.deepcopy(reader)._prefix is None


def test_too_many_soft_tokens_are_refused(gpt):
    with pytest.raises(ValueError, match="soft_prompt_length=60 are more than the backbone's 64"):
        SoftPromptReader(gpt, 8, 60, "Up or down?")


def test_an_untrained_reader_changes_nothing(gpt):
    with_one, without = build(gpt, soft_prompt_length=3), build()
    missing = with_one.load_state_dict(without.state_dict(), strict=False).missing_keys
    assert all(name.startswith("reader.") for name in missing)
    x = series(2, 24)[..., None].float()
    torch.testing.assert_close(with_one(x), without(x))


def test_a_stream_with_a_language_model_forecasts_as_the_context_does(gpt):
    model = build(gpt, soft_prompt_length=3)
    opened(model.reader)
    exact = model.exact()
    assert exact.reader is model.reader  # no second language model
    for steps in (8, 20, 36):  # fewer tokens than are read, and more
        x = series(2, steps)
        stream = exact.advance(exact.empty_stream(2), x)
        expected = model(x[..., None].float())
        torch.testing.assert_close(
            exact.forecast(stream, 6), expected.double(), rtol=1e-5, atol=1e-4
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"normalisation": "batch"}, "normalisation must be one of"),
        ({"heads": 3}, "must be a multiple of heads=3"),
        ({"mixer": "lstm"}, "mixer must be one of"),
    ],
)
def test_names_and_sizes_that_do_not_fit_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        build(**changes)
    with pytest.raises(ValueError, match="no multiple of patch_length=4"):
        build()(torch.zeros(1, 10, 1))
