"""Models that are saved in one process and used in another; their files: `test_directory.py`.

Run as a script, this file is the other process: it loads what the tests saved and writes down what
the models say.
"""

import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch
from sktime.base import load as sktime_load
from sktime.datasets import load_airline
from sktime.exceptions import NotFittedError
from sktime.forecasting.naive import NaiveForecaster
from sktime.utils._testing.hierarchical import _make_hierarchical

import tsllm
from tsllm import (
    AarenForecaster,
    AutoTimesForecaster,
    Context,
    DLinearForecaster,
    S2IPForecaster,
    TimeCMAForecaster,
)
from tsllm.backbone.export import export_backbone
from tsllm.errors import BackboneMismatchError, BackboneNotFoundError, DataError
from tsllm.forecasters import sktime_fields

TINY = "random:gpt2?hidden=16&layers=1&heads=2&seed=0"
pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
SMALL = {"backbone": TINY, "context_length": 8, "token_length": 4, "max_steps": 3}
SMALL_OF = {
    AarenForecaster: {
        "context_length": 8,
        "patch_length": 4,
        "hidden": 8,
        "feedforward": 8,
        "max_steps": 3,
    },
    AutoTimesForecaster: SMALL,
    S2IPForecaster: {"backbone": TINY, "context_length": 8, "pool_size": 10, "max_steps": 3},
    TimeCMAForecaster: {
        "backbone": TINY,
        "context_length": 8,
        "channel": 4,
        "heads": 2,
        "decoder_layers": 1,
        "feedforward": 8,
        "max_steps": 3,
    },
}
FH = [1, 2, 5]
NEW_STEPS = 3


def wave(steps, start=0.0):
    return (
        np.sin(np.arange(steps) / 3 + start) * 10 + 50 + np.random.default_rng(0).normal(size=steps)
    )


def frame(index, variables=("v",)):
    """Values on an index; its last steps are what the model is updated with."""
    return pd.DataFrame({v: wave(len(index), k) for k, v in enumerate(variables)}, index=index)


def panel(lengths, dates):
    """A panel of unequal series whose ids are not sorted, one name an id."""
    return pd.concat({name: frame(dates[:steps]) for name, steps in lengths.items()})


def days(steps, **options):
    return pd.date_range("2024-02-01", periods=steps, freq="D", **options)


def cases():
    """Data and parameters of every kind of model that is exchanged between the processes."""
    return {
        "period": (load_airline()[:60], {}),
        "zone": (frame(days(70, tz="Europe/Berlin", name="day")), {}),
        "seconds": (frame(pd.date_range("2024", periods=60, freq="h", unit="s")), {}),
        "panel": (panel({"b": 60, "a": 40, "c": 12}, days(60)), {}),
        "whole ids": (panel({7: 30, 3: 40, 11: 33}, pd.RangeIndex(5, 45)), {}),
        "hierarchy": (
            _make_hierarchical((2, 2), min_timepoints=25, max_timepoints=25, random_state=0),
            {},
        ),
        "multivariate": (frame(pd.RangeIndex(60), (1, 0)), {}),
        "array": (wave(60), {}),
        "quantile": (frame(days(70)), {"loss": "quantile", "quantiles": (0.1, 0.5, 0.9)}),
        "adaptive": (panel({"b": 60, "a": 40}, days(60)), {"adaptive": True}),
        "timestamps": (frame(days(60)), {"timestamps": True, "embedding_store": None}),
        "lora": (frame(days(60)), {"lora": {"r": 2, "target_modules": ("c_attn",)}}),
        "in context": (frame(days(60)), {"in_context": wave(20), "in_context_length": 4}),
        "updated": (frame(days(60)), {"update_epochs": 1}),
        "no backbone": (frame(days(60)), {"backbone": None}),
        "minilm": (
            load_airline()[:60],
            {"backbone": "sentence-transformers/all-MiniLM-L6-v2", "backbone_layers": 1},
        ),
        "aaren": (
            panel({"b": 60, "a": 40}, days(60)),
            {"cls": AarenForecaster, "adaptive": True},
        ),
        "aaren in front": (
            frame(days(60)),
            {"cls": AarenForecaster, "backbone": TINY, "soft_prompt_length": 2},
        ),
        "timecma": (frame(days(60)), {"cls": TimeCMAForecaster}),
        "timecma, per series": (
            panel({"b": 60, "a": 40, "c": 12}, days(60)),
            {"cls": TimeCMAForecaster, "value_format": "series", "update_epochs": 1},
        ),
        "s2ip": (frame(days(60)), {"cls": S2IPForecaster}),
        "s2ip clusters": (
            panel({"b": 60, "a": 40}, days(60)),
            {"cls": S2IPForecaster, "anchor_pool": "clusters", "tune": ("positions",)},
        ),
    }


def split(y):
    """Cut the last steps of every series off, for the update."""
    if isinstance(y, np.ndarray):
        return y[:-NEW_STEPS], pd.Series(y[-NEW_STEPS:], index=range(len(y) - NEW_STEPS, len(y)))
    if not isinstance(y.index, pd.MultiIndex):
        return y[:-NEW_STEPS], y[-NEW_STEPS:]
    names = list(range(y.index.nlevels - 1))
    ahead = y.groupby(level=names, sort=False).cumcount(ascending=False) < NEW_STEPS
    return y[~ahead], y[ahead]


def fitted(y, *, cls=AutoTimesForecaster, **parameters):
    return cls(**{**SMALL_OF[cls], "random_state": 0, **parameters}).fit(y, fh=FH)


def exercise(forecaster, new):
    """Do everything that a fitted forecaster can do, and tell what came out."""
    variables = forecaster.fitted_.shape.n_variables
    contexts = [Context(np.arange(20.0 * variables).reshape(20, variables) ** 1.1)]
    summary = forecaster.summary()
    del summary["embedding_store"]  # of the process, not of the model
    return {
        "parameters": {
            name: value
            for name, value in forecaster.get_params().items()
            if name != "embedding_store"
        },
        "cutoff": forecaster.cutoff,
        "fh": forecaster.fh.to_pandas(),
        "summary": summary,
        "predict": forecaster.predict(),
        "quantiles": forecaster.predict_quantiles(alpha=[0.1, 0.5, 0.9]),
        "forecast": forecaster.forecast(contexts, 6, quantiles=[0.2, 0.8]),
        "predict after update": forecaster.update(new).predict(),
        "quantiles after update": forecaster.predict_quantiles(alpha=[0.1, 0.5, 0.9]),
        "cutoff after update": forecaster.cutoff,
    }


def check_same(got, expected):
    """Equal in every bit, every label, every dtype and every frequency."""
    assert got.keys() == expected.keys()
    for name, value in expected.items():
        if isinstance(value, pd.DataFrame):
            pd.testing.assert_frame_equal(got[name], value, check_exact=True, check_freq=True)
        elif isinstance(value, pd.Series):
            pd.testing.assert_series_equal(got[name], value, check_exact=True, check_freq=True)
        elif isinstance(value, pd.Index):
            pd.testing.assert_index_equal(got[name], value, exact=True)
            assert getattr(got[name], "freq", None) == getattr(value, "freq", None)
        elif isinstance(value, dict):
            assert {key: type(item) for key, item in got[name].items()} == {
                key: type(item) for key, item in value.items()
            }
            np.testing.assert_equal(got[name], value)
        else:
            np.testing.assert_array_equal(got[name], value)


def other_process(folder):
    """Load every model in each of its three forms, and write down what they say."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    told = {}
    for place in sorted(folder.iterdir()):
        with (place / "new.pickle").open("rb") as file:
            new = pickle.load(file)
        with (place / "forecaster.pickle").open("rb") as file:
            pickled = pickle.load(file)
        told[place.name] = {
            "tsllm": exercise(tsllm.load(place / "model"), new),
            "sktime": sktime_load(str(place / "sktime")).predict(),
            "pickle": pickled.predict(),
        }
    (folder / "told.pickle").write_bytes(pickle.dumps(told))


@pytest.fixture(scope="module")
def exchanged(tmp_path_factory):
    """Name to (folder, what the original says, what the other process says)."""
    folder = tmp_path_factory.mktemp("exchanged")
    said = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # marks do not reach fixtures
        for name, (y, parameters) in cases().items():
            past, new = split(y)
            forecaster = fitted(past, **parameters)
            place = folder / name
            place.mkdir()
            tsllm.save(forecaster, place / "model")
            forecaster.save(place / "sktime")
            (place / "forecaster.pickle").write_bytes(pickle.dumps(forecaster))
            (place / "new.pickle").write_bytes(pickle.dumps(new))
            said[name] = exercise(forecaster, new)
    done = subprocess.run(
        [sys.executable, __file__, str(folder)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = pickle.loads((folder / "told.pickle").read_bytes())
    return {name: (folder / name, said[name], told[name]) for name in said}


@pytest.fixture(scope="module")
def airline():
    return fitted(load_airline())


@pytest.fixture
def saved(airline, tmp_path):
    return tsllm.save(airline, tmp_path / "model")


# ---------------------------------------------------------------------- another process


@pytest.mark.parametrize("name", cases())
def test_another_process_says_the_same(exchanged, name):
    _, said, told = exchanged[name]
    check_same(told["tsllm"], said)


@pytest.mark.parametrize("name", cases())
def test_sktime_and_pickle_say_the_same(exchanged, name):
    _, said, told = exchanged[name]
    for form in ("sktime", "pickle"):
        check_same({"predict": told[form]}, {"predict": said["predict"]})


@pytest.mark.parametrize("name", cases())
def test_no_form_holds_the_backbone(exchanged, name):
    folder, said, _ = exchanged[name]
    model = folder / "model"
    weights = {
        key: tensor
        for key, tensor in safetensors.torch.load_file(model / "model.safetensors").items()
        if ".model." in key and not key.endswith(".centres")  # S²IP's clusters are not trained
    }
    trained = sum(tensor.numel() for tensor in weights.values())
    assert trained == said["summary"]["trained_parameters"]
    most = 2_000_000 if name == "minilm" else 200_000
    assert sum(file.stat().st_size for file in model.iterdir()) < most
    assert (folder / "sktime.zip").stat().st_size < most
    assert (folder / "forecaster.pickle").stat().st_size < most


def test_baseline_without_a_language_model(tmp_path):
    y = frame(days(60), ("a", "b"))
    forecaster = DLinearForecaster(context_length=8, max_steps=3, random_state=0).fit(y, fh=FH)
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    check_same({"predict": loaded.predict()}, {"predict": forecaster.predict()})


# ---------------------------------------------------------------------- pretraining


def test_pretrained_model_is_ready_to_fit(tmp_path):
    past, new = split(frame(days(50)))
    forecaster = AutoTimesForecaster(**SMALL, random_state=0)
    forecaster.pretrain(panel({"b": 40, "a": 30}, days(40)), fh=FH)
    path = tsllm.save(forecaster, tmp_path / "model")
    assert not (path / "context.parquet").exists()
    loaded = tsllm.load(path)
    assert loaded.state == "pretrained"
    with pytest.raises(NotFittedError):
        loaded.predict(fh=FH)
    # A clone keeps what was pretrained, of the loaded one as well.
    said, told = (each.clone().fit(past, fh=FH) for each in (forecaster, loaded))
    assert len(told.fitted_.trained_on) == 1  # fitting did not train
    check_same(exercise(told, new), exercise(said, new))


@pytest.mark.parametrize("parameters", [{}, {"adaptive": True}, {"update_epochs": 1}])
def test_fitted_after_pretraining(tmp_path, parameters):
    past, new = split(frame(days(50)))
    forecaster = AutoTimesForecaster(**SMALL, random_state=0, **parameters)
    forecaster.pretrain(panel({"b": 40, "a": 30}, days(40)), fh=FH).fit(past, fh=FH)
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert (loaded.fitted_ is loaded.pretrained_) == (not parameters)
    other = split(frame(days(60)))[0]
    check_same(exercise(loaded, new), exercise(forecaster, new))
    # Fitting again starts from what was pretrained, in both.
    check_same(
        {"predict": loaded.fit(other, fh=FH).predict()},
        {"predict": forecaster.fit(other, fh=FH).predict()},
    )


# ---------------------------------------------------------------------- what is and is not saved


@pytest.mark.parametrize(
    "ids",
    [
        ("b", "a"),
        (2, 1),
        (2.5, -1.0),
        tuple(pd.to_datetime(["2024-01-02", "2024-01-01"])),
        tuple(pd.PeriodIndex(["2024-02", "2024-01"], freq="M")),
    ],
    ids=lambda ids: type(ids[0]).__name__,
)
def test_series_ids_of_every_kind(tmp_path, ids):
    y = panel(dict(zip(ids, (30, 20))), days(30))
    forecaster = fitted(y, adaptive=True)
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    check_same({"predict": loaded.predict()}, {"predict": forecaster.predict()})
    assert [type(key) for key in loaded._contexts] == [type(key) for key in forecaster._contexts]
    context = Context(y.loc[ids[0]].to_numpy(), series_id=ids[0])
    np.testing.assert_array_equal(
        loaded.forecast([context], 3, quantiles=[0.1]),
        forecaster.forecast([context], 3, quantiles=[0.1]),
    )


def test_without_context(airline, tmp_path):
    y = load_airline()
    path = tsllm.save(airline, tmp_path / "model", include_context=False)
    assert not (path / "context.parquet").exists()
    loaded = tsllm.load(path)
    for predict in (loaded.predict, loaded.predict_quantiles):
        with pytest.raises(DataError, match=r"saved without its context: .*update\(y\).*forecast"):
            predict()
    context = Context(y.to_numpy())
    np.testing.assert_array_equal(loaded.forecast([context], 4), airline.forecast([context], 4))
    check_same({"it": loaded.update(y).predict()}, {"it": airline.predict()})


def test_without_context_no_value_of_the_series_is_written(tmp_path):
    y = load_airline()
    path = tsllm.save(fitted(y, adaptive=True), tmp_path / "model", include_context=False)
    tensors = safetensors.torch.load_file(path / "model.safetensors")
    assert not any(".pending." in name for name in tensors)
    written = np.concatenate([tensor.double().flatten() for tensor in tensors.values()])
    assert not np.isin(y.to_numpy(), written).any()


def test_context_can_be_read_by_others(tmp_path):
    y = panel({"b": 30, "a": 20}, days(30, tz="Europe/Berlin"))
    table = pd.read_parquet(tsllm.save(fitted(y), tmp_path / "model") / "context.parquet")
    assert list(table.columns) == ["series", "series_id", "timestamp", "v"]
    expected = pd.concat([y.loc["b"][-21:], y.loc["a"][-20:]])  # three weeks: see shrinking.py
    assert table["v"].tolist() == expected["v"].tolist()
    assert table["series_id"].tolist() == ["b"] * 21 + ["a"] * 20
    assert (table["timestamp"] == expected.index.tz_convert("UTC")).all()


def test_the_embedding_store_stays_behind(tmp_path):
    forecaster = fitted(frame(days(40)), timestamps=True, embedding_store=tmp_path / "store")
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert loaded.embedding_store is None


def test_a_frame_in_context_comes_back_as_its_values(tmp_path):
    prompt = frame(days(20))
    forecaster = fitted(frame(days(60)), in_context=prompt, in_context_length=4)
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    np.testing.assert_array_equal(loaded.in_context, prompt.to_numpy())
    check_same({"predict": loaded.predict()}, {"predict": forecaster.predict()})


def test_loss_history_with_nan_is_kept(airline, tmp_path):
    forecaster = fitted(load_airline())
    forecaster.fitted_.history = [{"epoch": 1, "train_loss": float("nan"), "validation_loss": None}]
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    np.testing.assert_equal(loaded.fitted_.history, forecaster.fitted_.history)


def test_saving_changes_nothing_and_loading_shares_nothing(airline, saved):
    before = airline.predict_quantiles()
    one, other = tsllm.load(saved), tsllm.load(saved)
    for parameter in one.fitted_.model.parameters():
        parameter.data.zero_()
    one.fitted_.calibration.pooled.errors[:] = 0
    check_same({"it": other.predict_quantiles()}, {"it": before})
    check_same({"it": airline.predict_quantiles()}, {"it": before})


@pytest.mark.parametrize(
    ("parameters", "name"),
    [
        ({"random_state": np.random.RandomState(0)}, "random_state"),
        ({"in_context": np.array(["a"] * 20)}, "in_context"),
        ({"verbose": object()}, "verbose"),
    ],
)
def test_parameters_that_no_file_can_hold(airline, tmp_path, parameters, name):
    forecaster = fitted(load_airline())
    for key, value in parameters.items():
        setattr(forecaster, key, value)
    with pytest.raises(DataError, match=f"{name} cannot be saved"):
        tsllm.save(forecaster, tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_only_forecasters_of_tsllm(airline, tmp_path):
    with pytest.raises(DataError, match="a NaiveForecaster cannot be saved"):
        tsllm.save(NaiveForecaster().fit(load_airline()), tmp_path / "model")
    own = type("AutoTimesForecaster", (AutoTimesForecaster,), {})
    with pytest.raises(DataError, match="cannot be saved"):
        tsllm.save(own(**SMALL).fit(load_airline()), tmp_path / "model")
    with pytest.raises(NotFittedError):
        tsllm.save(AutoTimesForecaster(), tmp_path / "model")


def test_card(tmp_path):
    y = panel({"b": 40, "a": 30}, days(40))
    forecaster = fitted(y, loss="mae", adaptive=True)
    card = (tsllm.save(forecaster, tmp_path / "model") / "card.md").read_text()
    summary = forecaster.summary()
    for part in (
        "# AutoTimesForecaster",
        "2 series with 70 steps in all, 2024-02-01 00:00:00 to 2024-03-11 00:00:00",
        "frequency: D",
        "| loss | 'mae' |",
        f"| validation loss | {summary['validation_loss']} |",
        f"calibrated for 5 steps on {summary['calibration_windows']} windows, and adaptive",
        "licence | none, for its weights are random",
        "tsllm.load(",
        "library_name: tsllm",
        "|---|---|\n| loss |",
        "\n- frequency: D\n- variables: 1\n",
    ):
        assert part in card
    assert "patience" not in card  # the default


def test_card_names_the_licence(exchanged):
    folder = exchanged["minilm"][0]
    assert "| licence | Apache-2.0 |" in (folder / "model" / "card.md").read_text()


# ---------------------------------------------------------------------- what saving touches


def test_sktime_keeps_what_it_remembers_in_the_attributes_that_are_named(tmp_path):
    """Fails where sktime renames one of its private attributes, or sets another one."""
    forecaster = AutoTimesForecaster(**SMALL, random_state=0)
    forecaster.pretrain(panel({"b": 40, "a": 30}, days(40)), fh=FH).fit(frame(days(50)), fh=FH)
    assert vars(forecaster).keys() >= {*sktime_fields.PLAIN, "_y_metadata", "_fh"}
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert vars(loaded).keys() == vars(forecaster).keys()
    for name in sktime_fields.PLAIN:
        check_same({name: getattr(loaded, name)}, {name: getattr(forecaster, name)})


LOADED = """
import sys, tsllm
from sktime.datasets import load_airline

def loaded():
    return {name for name in sys.modules if name.startswith("tsllm")}

forecaster = tsllm.DLinearForecaster(max_steps=1).fit(load_airline(), fh=[1])
before = loaded()
tsllm.load(tsllm.save(forecaster, sys.argv[1]))
print(len(loaded()), len(loaded() - before))
print(*(n for n in loaded() if n.startswith(("tsllm.events", "tsllm.evaluation", "tsllm.mlflow"))))
"""


def test_a_forecaster_is_saved_and_loaded_without_events_and_evaluation(tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", LOADED, str(tmp_path / "model")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    counts, foreign = done.stdout.splitlines()
    assert foreign == ""
    everything, by_saving = map(int, counts.split())
    assert everything <= 150
    assert by_saving <= 6


# ---------------------------------------------------------------------- the backbone


def test_another_backbone_is_refused_by_both_digests(airline, saved):
    spec = TINY.replace("seed=0", "seed=1")
    ours = airline.fitted_.backbone.digest
    theirs = tsllm.load_backbone(spec).digest
    with pytest.raises(BackboneMismatchError) as caught:
        tsllm.load(saved, backbone=spec)
    assert ours in str(caught.value)
    assert theirs in str(caught.value)


def test_the_same_backbone_may_have_moved(airline, saved):
    spec = "random:gpt2?seed=0&heads=2&layers=1&hidden=16"
    loaded = tsllm.load(saved, backbone=spec, device="cpu")
    assert (loaded.backbone, loaded.device) == (spec, "cpu")
    check_same({"predict": loaded.predict()}, {"predict": airline.predict()})


@pytest.mark.parametrize("spec", ["{}", "random:{}?seed=2", "layer:attention?like={}"])
def test_a_relative_path_is_saved_in_full(tmp_path, monkeypatch, spec):
    here, away = tmp_path / "here", tmp_path / "away"
    away.mkdir()
    export_backbone(tsllm.load_backbone(TINY, device="cpu"), here / "tiny")
    monkeypatch.chdir(here)
    forecaster = fitted(load_airline(), backbone=spec.format("tiny"))
    assert forecaster.backbone == spec.format("tiny")  # as it was typed
    handle = forecaster.fitted_.backbone
    monkeypatch.chdir(away)
    path = tsllm.save(forecaster, tmp_path / "model")
    full = spec.format(here / "tiny")
    loaded = tsllm.load(path, device="cpu")
    assert loaded.backbone == loaded.summary()["backbone"] == full
    check_same({"predict": loaded.predict()}, {"predict": forecaster.predict()})
    assert pickle.loads(pickle.dumps(handle)).spec == full
    assert "base_model" not in (path / "card.md").read_text()

    (here / "tiny").rename(here / "moved")
    with pytest.raises(BackboneNotFoundError, match=r"pass their directory as backbone=") as caught:
        tsllm.load(path, device="cpu")
    assert str(here / "tiny") in str(caught.value)
    moved = tsllm.load(path, device="cpu", backbone=spec.format(here / "moved"))
    check_same({"predict": moved.predict()}, {"predict": forecaster.predict()})


def test_the_name_of_an_architecture_is_no_directory(tmp_path, monkeypatch):
    (tmp_path / "gpt2").mkdir()
    monkeypatch.chdir(tmp_path)
    assert tsllm.load_backbone(TINY, device="cpu").spec == TINY


def test_a_backbone_where_there_is_none(tmp_path):
    path = tsllm.save(fitted(load_airline(), backbone=None), tmp_path / "model")
    with pytest.raises(DataError, match="uses none"):
        tsllm.load(path, backbone=TINY)


if __name__ == "__main__":
    other_process(Path(sys.argv[1]))
