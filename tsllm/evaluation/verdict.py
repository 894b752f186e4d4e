"""The verdict of an ablation in plain words, by stated rules."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tsllm.evaluation.paired import PairedDifference

#: What the answers mean, in words.
ANSWERS = {
    "yes": "the language model helps, more than anything that took its place",
    "architecture": "something in its place helps, and needs no language",
    "unclear": "it is better than nothing, and whether for the language cannot be told",
    "undecided": "no difference can be told",
    "no": "it makes no difference that matters",
    "harm": "the model is better without it",
}
_NAMES = {
    "random": "the same architecture with random weights",
    "attention": "one trained attention layer in its place",
    "transformer": "one trained transformer block in its place",
}


class Wording(NamedTuple):
    """How a verdict speaks of its metric."""

    error: str
    amount: Callable[[PairedDifference], str]
    least: Callable[[float], str]


class Verdict(NamedTuple):
    """An answer of `ANSWERS`, and the sentences that say it."""

    answer: str
    text: str


def judge(
    controls: Mapping[str, PairedDifference],
    *,
    min_difference: float,
    strict: Mapping[str, PairedDifference] | None = None,
    wording: Wording | None = None,
) -> Verdict:
    """Say whether the language model helps.

    Each control's difference from the pretrained variant, over all horizons, falls into one of four
    classes, by its relative value r, its interval and the least relevant difference d:

    - "same": the whole interval lies within -d and d;
    - "worse" or "better": else, the interval leaves 0 out and ``|r| >= d``;
    - "open": anything else.

    Where the variant without a language model is better, the answer is "harm". Else, where anything
    in the language model's place is better, by intervals corrected for the number of such variants,
    it is "architecture". Else the variant without decides where it is the same ("no") or
    open ("undecided"). Where it is worse, "yes" needs every other control to be worse as well, so
    that however many there are, a wrong "yes" is no more likely than with one; one that is the same
    makes it "architecture", and anything else "unclear".

    Parameters
    ----------
    controls : mapping of str to PairedDifference
        "none" among them, then those that were run of "random", "attention" and "transformer": each
        control less the pretrained variant.
    min_difference : float
        As a share of the pretrained variant's error.
    strict : mapping, optional
        The same but for "none", with the corrected intervals. None: they need no correction.
    wording : Wording, optional
        None: percents of an error.

    Returns
    -------
    Verdict
    """
    words = wording or in_percent("error")
    least = words.least(min_difference)
    none = controls["none"]
    first = classify(none, min_difference)
    without = f"without it the {words.error} is {words.amount(none)}"
    others = {name: pair for name, pair in controls.items() if name != "none"}
    told = strict or others
    better = [name for name in others if classify(told[name], min_difference) == "better"]
    gain = _list(others, better, words)
    if first == "better":
        more = f" In its place better as well: {gain}." if better else ""
        return Verdict("harm", f"No. On this data the language model does harm: {without}.{more}")
    if better:
        return Verdict("architecture", f"Not the language: {gain}; {without}.")
    if first == "same":
        return Verdict(
            "no",
            f"No. On this data the language model makes no difference that matters: {without}, and "
            f"less than {least} counts as none.",
        )
    if first == "open":
        if math.isnan(none.relative_lower):
            why = "the test part is too short for an interval: use a longer one"
        else:
            why = "more windows or seeds would narrow the interval"
        return Verdict(
            "undecided", f"No difference of {least} or more can be told: {without}; {why}."
        )
    if not others:
        return Verdict(
            "unclear",
            f"Better than nothing: {without}. Whether that is the language cannot be told, for no "
            "variant put something else in its place.",
        )
    classes = {name: classify(pair, min_difference) for name, pair in others.items()}
    same = [name for name in others if classes[name] == "same"]
    if same:
        return Verdict(
            "architecture", f"Not the language: {without}, but {_list(others, same, words)}."
        )
    unsure = [name for name in others if classes[name] != "worse"]
    if unsure:
        return Verdict(
            "unclear",
            f"Better than nothing: {without}. Whether that is the language cannot be told: "
            f"{_list(others, unsure, words)}.",
        )
    return Verdict(
        "yes", f"Yes. The language model helps: {without}; {_list(others, list(others), words)}."
    )


def classify(pair: PairedDifference, min_difference: float) -> str:
    """Give the class of a difference from the pretrained variant; see `judge`."""
    low, value, high = pair.relative_lower, pair.relative, pair.relative_upper
    if math.isnan(low):
        return "open"
    if -min_difference <= low and high <= min_difference:
        return "same"
    if (low > 0 or high < 0) and abs(value) >= min_difference:
        return "worse" if value > 0 else "better"
    return "open"


def judge_baselines(
    pairs: Mapping[str, PairedDifference], *, min_difference: float, error: str = "error"
) -> list[str]:
    """Say how baselines do beside the pretrained variant, and whether one is better."""
    if not pairs:
        return []
    shown = "; ".join(f"{name} {amount(pair)}" for name, pair in pairs.items())
    sentences = [f"Beside it, the {error} of simpler methods: {shown}."]
    better = [n for n, pair in pairs.items() if classify(pair, min_difference) == "better"]
    if better:
        sentences.append(f"Better than the language model here: {', '.join(better)}.")
    return sentences


def judge_naive(variants: Mapping[str, PairedDifference], *, min_difference: float) -> list[str]:
    """Say whether anything beats repeating the last season, where the pretrained variant does not.

    Parameters
    ----------
    variants : mapping of str to PairedDifference
        Each variant that was trained, "pretrained" among them, less the seasonal naive forecast.
    min_difference : float
    """
    better = [name for name, pair in variants.items() if classify(pair, min_difference) == "better"]
    if "pretrained" in better:
        return []
    if not better:
        return ["Nothing that was trained here can be told to beat repeating the last season."]
    return [
        "The language model cannot be told to beat repeating the last season; "
        f"{', '.join(better)} can."
    ]


def amount(pair: PairedDifference) -> str:
    """Write a relative difference and its interval: ``3.1 % lower [-5.0 %, -1.2 %]``."""
    way = "higher" if pair.relative >= 0 else "lower"
    value = f"{100 * abs(pair.relative):.1f} % {way}"
    if math.isnan(pair.relative_lower):
        return value
    return f"{value} [{100 * pair.relative_lower:+.1f} %, {100 * pair.relative_upper:+.1f} %]"


def in_percent(error: str) -> Wording:
    """Speak of an error in percent of the pretrained variant's."""
    return Wording(error, amount, lambda share: f"{100 * share:g} %")


def _list(pairs: Mapping[str, PairedDifference], chosen: Sequence[str], words: Wording) -> str:
    """Name controls with their differences."""
    return "; ".join(
        f"with {_NAMES[name]} the {words.error} is {words.amount(pairs[name])} than the pretrained "
        "model's"
        for name in chosen
    )
