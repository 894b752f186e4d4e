"""LoRA in every method that can tune its language model: private, saved, threaded, never merged."""

import sys
import threading

import numpy as np
import pytest
import safetensors.torch
from numpy.testing import assert_array_equal
from sktime.datasets import load_airline

import tsllm
from small_forecasters import SMALL, TUNED, season, small
from tsllm import Context, load_backbone
from tsllm.backbone.shared import canonical_digest
from tsllm.errors import DataError

FH = [1, 2, 5]
ADAPTERS = {"r": 2, "alpha": 8, "dropout": 0.1}


@pytest.fixture(params=sorted(TUNED))
def method(request):
    return request.param


def tuned(method, **parameters):
    # A rate at which four steps move the adapters.
    settings = TUNED[method] | {"lora": ADAPTERS, "learning_rate": 1e-2}
    return small(method, **(settings | parameters))


def adapters(forecaster):
    return {
        name: parameter.detach().clone()
        for name, parameter in forecaster.fitted_.model.named_parameters()
        if "lora_" in name
    }


def digest_now(forecaster):
    shared = forecaster.fitted_.backbone._shared
    return canonical_digest(shared.causal, shared.config, shared.tokenizer)


def test_adapters_are_all_that_is_trained_inside_the_language_model(method):
    y = load_airline()
    plain = tuned(method, lora=None).fit(y, fh=FH)
    base = digest_now(plain)
    forecaster = tuned(method).fit(y, fh=FH)
    added = adapters(forecaster)
    names = {n for n, _ in forecaster.fitted_.model.named_parameters()}
    assert names - added.keys() == {n for n, _ in plain.fitted_.model.named_parameters()}
    # B starts at zero, so any other value was learnt.
    assert all(bool(t.any()) for n, t in added.items() if "lora_B" in n)
    assert digest_now(forecaster) == base == load_backbone(forecaster.backbone).digest
    assert not np.array_equal(forecaster.predict().to_numpy(), plain.predict().to_numpy())


def test_an_empty_mapping_means_the_defaults(method):
    y = load_airline()
    implicit = tuned(method, lora={}).fit(y, fh=FH)
    explicit = tuned(method, lora={"r": 8, "alpha": 16, "dropout": 0.0}).fit(y, fh=FH)
    assert adapters(implicit)
    assert_array_equal(implicit.predict().to_numpy(), explicit.predict().to_numpy())


def test_two_estimators_share_the_base_and_not_the_adapters(method):
    y = load_airline()
    one = tuned(method).fit(y, fh=FH)
    said, base = one.predict(), digest_now(one)
    two = tuned(method, lora={"r": 3}, random_state=7).fit(y, fh=FH)
    assert one.fitted_.backbone == two.fitted_.backbone
    inside = [
        {p.data_ptr() for m in f.fitted_.model.modules() for p in _shell_parameters(m)}
        for f in (one, two)
    ]
    frozen = {p.data_ptr() for p in one.fitted_.backbone._shared.causal.parameters()}
    assert inside[0] & inside[1] == frozen
    assert_array_equal(one.predict().to_numpy(), said.to_numpy())
    assert digest_now(one) == base


def _shell_parameters(module):
    shell = module.__dict__.get("_shell")
    return [] if shell is None else list(shell.parameters())


def test_estimators_train_and_forecast_in_threads_as_they_do_alone(method):
    y = load_airline()
    settings = [{"lora": {"r": 2 + i, "dropout": 0.2}, "random_state": i} for i in range(4)]
    alone = [tuned(method, **one).fit(y, fh=FH) for one in settings]
    context = Context(season(30))
    expected = [(f.predict().to_numpy(), f.forecast([context], 9)) for f in alone]
    answers = [None] * len(settings)

    def work(i):
        forecaster = tuned(method, **settings[i]).fit(y, fh=FH)
        said = forecaster.predict().to_numpy()
        answers[i] = said, [alone[i].forecast([context], 9) for _ in range(5)]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(settings))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for (said, forecasts), (predicted, forecast) in zip(answers, expected):
        assert_array_equal(said, predicted)
        for one in forecasts:
            assert_array_equal(one, forecast)


def test_adapters_and_nothing_frozen_are_saved(method, tmp_path):
    y = load_airline()
    forecaster = tuned(method).fit(y, fh=FH)
    path = tsllm.save(forecaster, tmp_path / "model")
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    written = {name: t for name, t in tensors.items() if ".model." in name}
    assert sum(t.numel() for t in written.values()) == forecaster.summary()["trained_parameters"]
    assert sum("lora_" in name for name in written) == len(adapters(forecaster)) > 0
    loaded = tsllm.load(path)
    assert_array_equal(loaded.predict().to_numpy(), forecaster.predict().to_numpy())
    for name, tensor in adapters(loaded).items():
        assert_array_equal(tensor, adapters(forecaster)[name])


def test_training_goes_on_from_the_adapters(method):
    y = load_airline()
    forecaster = tuned(method, update_epochs=1).fit(y[:100], fh=FH)
    before = adapters(forecaster)
    forecaster.update(y[100:])
    after = adapters(forecaster)
    assert before.keys() == after.keys()
    assert any(not np.array_equal(before[name], after[name]) for name in before)


def test_without_peft_nothing_is_trained(method, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    forecaster = tuned(method)
    with pytest.raises(ImportError, match=r"lora needs peft: pip install 'peft>="):
        forecaster.fit(load_airline(), fh=FH)
    assert not hasattr(forecaster, "fitted_")


@pytest.mark.parametrize("name", sorted(SMALL.keys() - {"auto"}))
def test_contradictions_are_refused(name):
    y = load_airline()
    if name == "timecma":
        forecaster, words = small(name, lora={"r": 2}), "its prompts are embedded once and kept"
    else:
        forecaster, words = small(name, backbone=None, lora={"r": 2}), "backbone=None has none"
    with pytest.raises(DataError, match=words):
        forecaster.fit(y, fh=FH)


def test_wrong_settings_are_named_before_anything_is_trained(method):
    for lora, words in [
        ({"rank": 3}, "rank"),
        ({"r": 0}, "'r' must be a whole number"),
        (3, "mapping"),
    ]:
        with pytest.raises(DataError, match=words):
            tuned(method, lora=lora).fit(load_airline(), fh=FH)
