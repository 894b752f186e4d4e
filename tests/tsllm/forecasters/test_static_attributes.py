"""Attributes of series in TimeCMA's prompts."""

import numpy as np
import pandas as pd
import pytest
from covariate_frames import covariate_frames
from numpy.testing import assert_array_equal

import tsllm
from small_forecasters import SMALL, panel, small
from tsllm import Context
from tsllm.embeddings import EmbeddingStore
from tsllm.errors import DataError
from tsllm.prompts.writer import PromptWriter

pytestmark = pytest.mark.filterwarnings("ignore:the intervals ")
Y = panel([60, 60], ["a", "b"])
REGION = Y.index.get_level_values(0).map({"a": "north", "b": "south"})
X = pd.DataFrame({"region": REGION, "shop": 3}, index=Y.index)


def fitted(X=X, names=("region", "shop"), **parameters):
    return small("timecma", static_attributes=names, **parameters).fit(Y, X=X, fh=[1, 2, 3])


def test_attributes_stand_in_front_of_the_prompt():
    context = Context(np.arange(4.0), static={"region": "north", "kind": "mall"})
    (prompt,) = PromptWriter("{values}").write(context, [0], 4)
    (plain,) = PromptWriter("{values}").write(Context(np.arange(4.0)), [0], 4)
    assert prompt == f"region: north; kind: mall. {plain}"


def test_every_prompt_has_them(monkeypatch):
    read = []

    def spying(method):
        def spy(store, texts, *arguments, **options):
            texts = list(texts)
            read.extend(texts)
            return method(store, texts, *arguments, **options)

        return spy

    for name in ("fill", "encode"):
        monkeypatch.setattr(EmbeddingStore, name, spying(getattr(EmbeddingStore, name)))
    forecaster = fitted()
    trained = len(read)
    assert trained >= 100
    forecaster.predict(fh=range(1, 9))  # rolled out: the prompts of its own forecasts
    assert len(read) >= trained + 6
    starts = {text.partition(". ")[0] for text in read}
    assert starts == {"region: north; shop: 3", "region: south; shop: 3"}
    assert forecaster._contexts["a"].static == {"region": "north", "shop": "3"}


def test_they_survive_saving_and_updates(tmp_path):
    forecaster = fitted()
    loaded = tsllm.load(tsllm.save(forecaster, tmp_path / "model"))
    assert_array_equal(loaded.predict(), forecaster.predict())
    assert loaded._contexts["b"].static == {"region": "south", "shop": "3"}
    news = panel([63, 63], ["a", "b"])
    more = X.reindex(news.index, method="ffill")
    for one in (loaded, forecaster):
        one.update(news, X=more)
    assert_array_equal(loaded.predict(), forecaster.predict())


def test_beside_covariates_with_an_effect():
    warm = np.random.default_rng(0).normal(size=len(Y))
    both = X.assign(warm=warm)
    y = Y.add(5 * both["warm"], axis=0)
    forecaster = small("timecma", static_attributes=("region",)).fit(y, X=both, fh=[1])
    assert forecaster.fitted_.covariates.columns.names == ("shop", "warm")
    ends = [pd.Timestamp("2024-03-01")]
    index = pd.MultiIndex.from_product([["a", "b"], ends], names=Y.index.names)
    future = pd.DataFrame({"shop": 3, "warm": 1.0}, index=index)
    moved = forecaster.predict(X=future) - forecaster.predict(X=future.assign(warm=0.0))
    np.testing.assert_allclose(moved["value"], 5.0, rtol=0.2)


def test_in_long_tables_they_are_columns(tmp_path):
    data, _ = covariate_frames()
    data = data.assign(region=data["series_id"].map({"b": "south", "a": "north"}))
    data = data[["series_id", "timestamp", "value", "region"]]
    data.to_csv(tmp_path / "data.csv", index=False)
    options = {**SMALL["timecma"], "static_attributes": ["region"], "method": "timecma"}
    table = tsllm.forecast(tmp_path / "data.csv", 3, **options)
    assert_array_equal(table["forecast"], tsllm.forecast(data, 3, **options)["forecast"])


@pytest.mark.parametrize(
    ("X", "names", "told"),
    [
        (None, ("region",), "static_attributes names region and there is no X"),
        (X, ("regoin",), "'regoin', which is no column of X: did you mean 'region'"),
        (
            X.assign(region=np.where(np.arange(len(X)) < 30, "north", "east")),
            ("region",),
            "series 'a' has 'north' and 'east' in column 'region' of X, and a static attribute",
        ),
        (X.assign(region=None), ("region",), "series 'a' has no value in column 'region' of X"),
    ],
)
def test_attributes_that_cannot_be_used(X, names, told):
    with pytest.raises(DataError, match=told):
        fitted(X, names)


def test_contexts_without_their_attributes():
    with pytest.raises(DataError, match="comes without its attribute 'region'"):
        fitted().forecast([Context(np.arange(20.0))], 2)
    with pytest.raises(DataError, match="static_attributes"):
        tsllm.forecast(covariate_frames()[0], 2, method="aaren", static_attributes=["sky"])
