"""Ablations of text: what each variant reads, and verdicts where the truth is known."""

import numpy as np
import pandas as pd
import pytest
from sktime.forecasting.naive import NaiveForecaster

from small_forecasters import TINY
from tsllm import AutoTimesForecaster, DLinearForecaster, TextContext, ablate
from tsllm.errors import DataError
from tsllm.evaluation.holdout import hold_out
from tsllm.evaluation.text_variants import TEXT_VARIANTS, make_text_variants

pytestmark = pytest.mark.filterwarnings("ignore")

WORDS = ("frost", "calm", "heat")


def reports(steps=260, series=("a",), seed=0):
    """Make series whose changes are told by the text of the step, and tables of X."""
    rng = np.random.default_rng(seed)
    stamps = pd.date_range("2024-01-01", periods=steps, freq="D")
    values, texts = [], []
    for _ in series:
        kinds = rng.integers(0, 3, steps)
        values.append(3.0 * (kinds - 1) + 0.3 * rng.normal(size=steps))
        texts.append([f"A day of {WORDS[kind]}. Number {rng.integers(9)}." for kind in kinds])
    index = pd.MultiIndex.from_product([list(series), stamps], names=["series", "time"])
    y = pd.DataFrame({"y": np.concatenate(values)}, index=index)
    X = pd.DataFrame({"day": np.tile(np.arange(steps) % 7.0, len(series))}, index=index)
    X["report"] = np.concatenate(texts).astype(object)
    return (y, X) if len(series) > 1 else (y.loc[series[0]], X.loc[series[0]])


def reader(tmp_path, **more):
    settings = {"context_length": 8, "max_steps": 2, "embedding_store": tmp_path}
    return DLinearForecaster(**{**settings, "text_backbone": TINY, **more})


def run(tmp_path, **more):
    y, X = reports()
    settings = {"horizons": [1, 4], "test_size": 80, "baselines": [], "seeds": (0, 1)}
    return ablate(reader(tmp_path), y, X, text="report", **{**settings, **more})


def test_each_variant_reads_what_it_says(tmp_path):
    report = run(tmp_path, baselines=["seasonal_naive"])
    variants = ["pretrained", "random", "tfidf", "shuffled", "past", "none", "seasonal_naive"]
    assert report.table["variant"].unique().tolist() == variants
    # The tiny language model is random itself, so only the text can be told to help.
    assert report.answer in ("text", "yes", "unclear")
    assert "he text helps" in report.verdict
    errors = report.table.query("horizon == 'all'").set_index("variant")["mse"]
    assert errors["tfidf"] < 0.5 * errors["none"]
    assert errors["shuffled"] > 0.9 * errors["none"]
    assert errors["past"] > 0.9 * errors["none"]
    assert "Better than the forecaster with text" not in report.verdict
    compared = set(zip(report.differences["method_a"], report.differences["method_b"]))
    assert {("past", "none"), ("shuffled", "none"), ("none", "pretrained")} <= compared
    frozen = report.costs["frozen_parameters"]
    assert frozen["pretrained"] == frozen["past"] > frozen["tfidf"] == frozen["none"] == 0
    assert report.settings["text"] == ["report"]


def test_the_page_and_the_picture_are_about_text(tmp_path):
    report = run(tmp_path, variants=["tfidf"], seeds=(0,))
    page = report.to_markdown()
    assert page.startswith("# Does the text help, and the language model that reads it?")
    assert f"DLinearForecaster with {TINY}" in page
    assert "Whether the text is better than none" in page
    assert [t.get_text() for t in report.plot().get_yticklabels()] == ["tfidf", "none"]


def test_texts_that_tell_nothing_get_a_no(tmp_path):
    y, X = reports()
    X["report"] = X["report"].to_numpy()[np.random.default_rng(5).permutation(len(X))]
    report = ablate(
        reader(tmp_path), y, X, text="report", horizons=4, test_size=80, baselines=[], seeds=(0,)
    )
    assert report.answer in ("no", "undecided")
    assert report.verdict.startswith({"no": "No. ", "undecided": "Undecided: "}[report.answer])


def test_the_language_model_of_the_series_stays_as_it_is(tmp_path):
    y, X = reports(120)
    estimator = AutoTimesForecaster(
        TINY, context_length=8, token_length=4, max_steps=1, text_backbone=TINY,
        embedding_store=tmp_path,
    )  # fmt: skip
    made = make_text_variants(estimator, hold_out(y, [2], X=X), 2, ["report"], TEXT_VARIANTS)
    for method in made.methods.values():
        assert method.template.backbone == TINY


def test_any_forecaster_is_judged_in_text_context(tmp_path):
    y, X = reports(160)
    inner = TextContext(
        NaiveForecaster(strategy="mean"), text_backbone=TINY, embedding_store=tmp_path
    )
    report = ablate(
        inner, y, X[["report"]], text="report", horizons=2, test_size=40, stride=8, seeds=(0,),
        variants=["tfidf"], baselines=[],
    )  # fmt: skip
    errors = report.table.set_index("variant")["mse"]
    assert errors["tfidf"] < 0.7 * errors["none"]


def test_panels_and_texts_about_the_past(tmp_path):
    y, X = reports(120, ("a", "b"))
    report = ablate(
        reader(tmp_path, past_covariates=("report",)), y, X, text="report", horizons=2,
        test_size=30, stride=3, seeds=(0,), baselines=[],
    )  # fmt: skip
    assert report.left_out == {"past": "all texts are known up to the origin only"}
    assert not any("future texts" in note for note in report.notes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"text": "news"}, "text names the column 'news', and X has 'day', 'report'"),
        ({"text": []}, "text is empty: name at least one column of X"),
        ({"X": None}, "X is missing: pass the texts as X"),
        ({"variants": ["attention"]}, "variants of text must be among shuffled, past, tfidf"),
        ({"estimator": {"text_backbone": "tfidf"}}, "there is no language model to judge"),
    ],
)
def test_mistakes_are_told_before_anything_is_fitted(change, words, tmp_path):
    y, X = reports(60)
    change = {"text": "report", "X": X, **change}
    estimator = reader(tmp_path, **change.pop("estimator", {}))
    with pytest.raises(DataError, match=words):
        ablate(estimator, y, horizons=2, **change)


def test_a_forecaster_that_reads_no_text_is_sent_to_text_context():
    y, X = reports(60)
    with pytest.raises(DataError, match="wrap another forecaster in TextContext"):
        ablate(NaiveForecaster(), y, X, text="report", horizons=2)
