"""The verdict about texts: each rule, and what it says of texts about the past."""

import numpy as np
import pandas as pd
import pytest
from paired_differences import BETTER, OPEN, SAME, UNKNOWN, WORSE, pair

from tsllm.evaluation.text_variants import shuffled_texts
from tsllm.evaluation.text_verdict import TEXT_ANSWERS, judge_past, judge_text
from tsllm.evaluation.verdict import in_percent

HELPS = {"none": WORSE, "shuffled": WORSE}


@pytest.mark.parametrize(
    ("controls", "answer", "words"),
    [
        ({"none": BETTER}, "harm", "No. On this data the text does harm: without it the error is"),
        ({"none": SAME, "tfidf": WORSE}, "no", "and less than 1 % counts as none"),
        ({"none": OPEN, "tfidf": WORSE}, "undecided", "which may be chance"),
        ({"none": UNKNOWN}, "undecided", "the test part is too short for an interval"),
        ({"none": WORSE, "shuffled": SAME, "tfidf": WORSE}, "no", "Not the content of the texts"),
        ({"none": WORSE, "shuffled": BETTER}, "no", "with the same texts in random order"),
        (HELPS | {"tfidf": SAME, "random": WORSE}, "text", "the language model does not"),
        (HELPS | {"tfidf": WORSE, "random": BETTER}, "text", "with random weights the error is"),
        (HELPS | {"tfidf": WORSE, "random": WORSE}, "yes", "and so does the language model"),
        (HELPS | {"tfidf": WORSE}, "yes", "with a bag of words the error is 10.0 % higher"),
        (HELPS | {"tfidf": OPEN, "random": WORSE}, "unclear", "with a bag of words"),
        (HELPS, "unclear", "no variant put something else in its place"),
        ({"none": SAME, "tfidf": BETTER}, "no", "In place of the language model: with a bag"),
        ({"none": BETTER, "random": BETTER}, "harm", "In place of the language model"),
    ],
)
def test_rules(controls, answer, words):
    verdict = judge_text(controls, min_difference=0.01)
    assert verdict.answer == answer
    assert words in verdict.text
    assert answer in TEXT_ANSWERS


def test_a_better_bag_of_words_needs_the_corrected_interval():
    found = HELPS | {"tfidf": BETTER, "random": WORSE}
    wider = {"tfidf": pair(-0.10, -0.21, 0.01), "random": WORSE}
    assert judge_text(found, min_difference=0.01).answer == "text"
    assert judge_text(found, min_difference=0.01, strict=wider).answer == "unclear"


@pytest.mark.parametrize(
    ("beside", "words"),
    [
        (BETTER, "help as well"),
        (WORSE, "do harm"),
        (SAME, "make no difference that matters"),
        (OPEN, "cannot be told"),
    ],
)
def test_texts_about_the_past_are_judged_against_no_text(beside, words):
    pairs = {("past", "none"): beside, ("past", "pretrained"): WORSE}
    (sentence,) = judge_past(pairs, min_difference=0.01, words=in_percent("squared error"))
    assert words in sentence
    assert "10.0 % higher [+5.0 %, +15.0 %] than with the texts to come" in sentence
    assert judge_past({}, min_difference=0.01, words=in_percent("error")) == []


def test_texts_are_shuffled_within_their_series_and_nothing_else_is():
    index = pd.MultiIndex.from_product([["a", "b"], range(30)])
    X = pd.DataFrame({"report": [f"{s}{i}" for s, i in index], "day": np.arange(60)}, index=index)
    out = shuffled_texts(X, ["report"], 1)
    assert out["day"].equals(X["day"])
    assert X["report"].iloc[0] == "a0"
    for name in ("a", "b"):
        assert sorted(out.loc[name, "report"]) == sorted(X.loc[name, "report"])
        assert (out.loc[name, "report"] != X.loc[name, "report"]).mean() > 0.8
    pd.testing.assert_frame_equal(out, shuffled_texts(X, ["report"], 1))
    assert not out.equals(shuffled_texts(X, ["report"], 2))
