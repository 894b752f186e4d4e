"""Series as features: sktime's whole suite, and pipelines around the embedder."""

from decimal import Decimal

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sktime.datasets import load_unit_test
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from small_forecasters import TINY, panel, season
from tsllm import Context, LastTokenEmbedder, load_backbone
from tsllm.errors import DataError
from tsllm.prompts.writer import PromptWriter


@parametrize_with_checks([LastTokenEmbedder], obj_varname="estimator", check_varname="check")
def test_sktime_check(estimator, check):
    check_estimator(estimator, tests_to_run=check, raise_exceptions=True, verbose=False)


@pytest.mark.parametrize("value_format", ["window", "series", "int"])
def test_rows_are_the_embeddings_of_the_series_texts(value_format):
    y = panel([30, 12, 20], ["c", "a", "b"])
    y["other"] = -(y["value"] ** 2)
    y.iloc[[4, 29], 0] = np.nan
    features = LastTokenEmbedder(TINY, context_length=15, value_format=value_format).fit_transform(
        y
    )
    assert features.index.tolist() == ["c", "a", "b"]
    assert features.shape == (3, 2 * 16)
    assert features.columns[[0, -1]].tolist() == ["value_0", "other_15"]
    for name, steps in [("c", 15), ("a", 12), ("b", 15)]:
        own = y.loc[name]
        context = Context(own.to_numpy(), times=pd.DatetimeIndex(own.index, freq="D"))
        prompts = PromptWriter(value_format=value_format).write(context, [len(own) - steps], steps)
        expected = load_backbone(TINY).last_token(prompts).flatten()
        assert_allclose(features.loc[name], expected, atol=1e-5)


def test_series_that_differ_only_in_level_are_told_apart_where_asked_to():
    y = pd.Series(season(40))
    same, other = (
        LastTokenEmbedder(TINY, context_length=8, value_format=value_format)
        for value_format in ("window", "series")
    )
    stepped = y + 5.0 * (np.arange(40) < 30)  # the last steps are low in one and not in the other
    assert_array_equal(same.fit_transform(y), same.fit_transform(stepped))
    assert not np.allclose(other.fit_transform(y), other.fit_transform(stepped))


def test_series_of_every_form_have_the_same_embeddings():
    y = panel([30, 12], ["c", "a"])["value"].round(2)
    embedder = LastTokenEmbedder(TINY, context_length=15)
    expected = embedder.fit_transform(y.to_frame())
    assert_array_equal(embedder.fit_transform(y), expected)
    assert_array_equal(embedder.fit_transform(y.map(lambda v: Decimal(f"{v:.2f}"))), expected)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        ((1.0, 2.0), "X is of type tuple, which holds no series"),
        ([], "X is of type list"),
        (pd.Series(season(20))[::-1], "the series is not in time order: row 1"),
        (pd.Series(season(20) * 1e150), r"row 0.*beyond 1e\+140"),
        (
            pd.Series(season(20), pd.MultiIndex.from_product([[np.nan], range(20)])),
            "row 0 of X has no series id",
        ),
        (pd.Series(["a", "b"]), "row 0, .*holds 'a', which is no number"),
    ],
)
def test_what_cannot_be_embedded(X, words):
    with pytest.raises(DataError, match=words):
        LastTokenEmbedder(TINY).fit_transform(X)


def test_a_lone_series_is_one_row():
    features = LastTokenEmbedder(TINY).fit_transform(pd.Series(season(20)))
    assert features.shape == (1, 16)


def test_before_a_classifier_in_both_kinds_of_pipeline(tmp_path):
    X, y = load_unit_test(split="train", return_type="numpy3D")
    embedder = LastTokenEmbedder(TINY, embedding_store=tmp_path)
    theirs = make_pipeline(embedder, LogisticRegression(max_iter=1000)).fit(X, y).predict(X)
    ours = (embedder * LogisticRegression(max_iter=1000)).fit(X, y).predict(X)
    assert_array_equal(theirs, ours)
    by_hand = embedder.fit_transform(X)
    assert_array_equal(LogisticRegression(max_iter=1000).fit(by_hand, y).predict(by_hand), ours)


def test_what_cannot_be_written_is_refused():
    y = pd.Series(season(20))
    with pytest.raises(
        DataError, match="context_length must be a whole number of at least 1, found 0"
    ):
        LastTokenEmbedder(TINY, context_length=0).fit_transform(y)
    with pytest.raises(DataError, match="value_format must be one of"):
        LastTokenEmbedder(TINY, value_format="float").fit_transform(y)
    with pytest.raises(DataError, match=r"tokens and .* at most 256.*shorter context_length"):
        LastTokenEmbedder(TINY).fit_transform(pd.Series(season(90)))
    with pytest.raises(DataError, match="gap"):
        LastTokenEmbedder(TINY, freq="D").fit_transform(
            pd.Series(season(3), index=pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-05"]))
        )
