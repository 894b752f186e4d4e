"""Sentences: every language, nothing lost, never more tokens than the backbone reads."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tsllm.text import sentences_that_fit, split_sentences


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\t\u3000 ", []),
        ("Rain", ["Rain"]),
        ("It rains. It snows!  Does it? Yes", ["It rains.", "It snows!", "Does it?", "Yes"]),
        ("Pi is 3.14. Next", ["Pi is 3.14.", "Next"]),
        ("Seen in eight U.S. states. Done.", ["Seen in eight U.S. states.", "Done."]),
        ("J. Smith said so, e.g. Here.", ["J. Smith said so, e.g. Here."]),
        ('He said "go." Then left.', ['He said "go."', "Then left."]),
        ("one\ntwo\r\n\r\nthree", ["one", "two", "three"]),
        ("今天下雨。明天晴！后天呢？", ["今天下雨。", "明天晴！", "后天呢？"]),
        ("「雨です。」晴れ。", ["「雨です。」", "晴れ。"]),
        ("आज बारिश है। कल धूप।", ["आज बारिश है।", "कल धूप।"]),
        ("هل تمطر؟ نعم.", ["هل تمطر؟", "نعم."]),
        ("Идёт снег. Ветер.", ["Идёт снег.", "Ветер."]),
        ("Sun ☀️! Storm 🌩️… Cold", ["Sun ☀️!", "Storm 🌩️…", "Cold"]),
        ("a\x00b \x07 c", ["a b c"]),
    ],
)
def test_sentences_of_many_languages(text, sentences):
    assert split_sentences(text) == sentences


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("ab .!?。\n\"')。A1…"), max_size=60))
def test_nothing_visible_is_lost(text):
    sentences = split_sentences(text)
    assert re.sub(r"\s", "", "".join(sentences)) == re.sub(r"\s", "", text)
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@settings(max_examples=40, deadline=None)
@given(st.text(st.sampled_from("abc 今雨🌧️é."), max_size=200))
def test_pieces_fit_the_backbone_and_lose_nothing(bert, text):
    (pieces,) = sentences_that_fit([text], bert)
    assert max(bert.token_counts(pieces), default=0) <= bert.max_positions
    assert re.sub(r"\s", "", "".join(pieces)) == re.sub(r"\s", "", text)


def test_a_long_word_is_cut_and_a_short_sentence_is_not(bert):
    long, short = "x" * 10_000, "Rain now."
    pieces, rest = sentences_that_fit([long, short], bert)
    assert "".join(pieces) == long
    assert len(pieces) >= 10_000 // bert.max_positions
    assert rest == [short]
