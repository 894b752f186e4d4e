"""The verdict of an ablation in plain words, by stated rules."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from tsllm.evaluation.paired import PairedDifference

#: The meaning of each answer.
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
    """The name of the error in a verdict, and the format of its differences."""

    error: str
    amount: Callable[[PairedDifference], str]
    least: Callable[[float], str]


class Verdict(NamedTuple):
    """An answer of `ANSWERS`, and the sentences that explain it."""

    answer: str
    text: str


def judge(
    controls: Mapping[str, PairedDifference],
    *,
    min_difference: float,
    strict: Mapping[str, PairedDifference] | None = None,
    wording: Wording | None = None,
) -> Verdict:
    """Judge whether the language model helps.

    Each control's difference from the pretrained variant, over all horizons, falls into one of four
    classes, by its relative value r, its interval and the least relevant difference d:

    - "same": the whole interval lies within -d and d;
    - "worse" or "better": else, the interval excludes 0 and ``|r| >= d``;
    - "open": anything else.

    The answer is the first that applies:

    1. "harm": the variant without a language model is better.
    2. "architecture": a replacement is better, by intervals corrected for the number of
       replacements.
    3. "no" or "undecided": the variant without a language model is the same, or open.
    4. "architecture": a replacement is the same.
    5. "yes": there are replacements, and every one is worse. So more replacements do not make a
       wrong "yes" more likely.
    6. "unclear": anything else.

    Parameters
    ----------
    controls : mapping of str to PairedDifference
        Each control less the pretrained variant: "none", and those of "random", "attention" and
        "transformer" that were run.
    min_difference : float
        As a share of the pretrained variant's error.
    strict : mapping or None, default=None
        The same without "none", with the corrected intervals. None: no correction is needed.
    wording : Wording or None, default=None
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
    corrected = strict or others
    better = [name for name in others if classify(corrected[name], min_difference) == "better"]
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
        return Verdict("undecided", f"Undecided: {without}, which may be chance; {why}.")
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
    """Return the class of a difference from the pretrained variant; see `judge`."""
    low, value, high = pair.relative_lower, pair.relative, pair.relative_upper
    if math.isnan(low):
        return "open"
    if -min_difference <= low and high <= min_difference:
        return "same"
    if (low > 0 or high < 0) and abs(value) >= min_difference:
        return "worse" if value > 0 else "better"
    return "open"


def judge_baselines(
    pairs: Mapping[str, PairedDifference],
    *,
    min_difference: float,
    error: str = "error",
    subject: str = "the language model",
) -> list[str]:
    """Compare baselines with the pretrained variant: sentences, empty without baselines."""
    if not pairs:
        return []
    shown = "; ".join(f"{name} {amount(pair)}" for name, pair in pairs.items())
    sentences = [f"Beside it, the {error} of simpler methods: {shown}."]
    better = [n for n, pair in pairs.items() if classify(pair, min_difference) == "better"]
    if better:
        sentences.append(f"Better than {subject} here: {', '.join(better)}.")
    return sentences


def judge_naive(variants: Mapping[str, PairedDifference], *, min_difference: float) -> list[str]:
    """Report where the pretrained variant does not beat the seasonal naive forecast.

    ``variants`` holds each trained variant, "pretrained" among them, less the seasonal naive
    forecast.
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
    """Format a relative difference and its interval: ``3.1 % lower [-5.0 %, -1.2 %]``."""
    way = "higher" if pair.relative >= 0 else "lower"
    value = f"{100 * abs(pair.relative):.1f} % {way}"
    if math.isnan(pair.relative_lower):
        return value
    return f"{value} [{100 * pair.relative_lower:+.1f} %, {100 * pair.relative_upper:+.1f} %]"


def in_percent(error: str) -> Wording:
    """Return the wording for an error in percent of the pretrained variant's."""
    return Wording(error, amount, lambda share: f"{100 * share:g} %")


def list_controls(
    pairs: Mapping[str, PairedDifference],
    chosen: Sequence[str],
    words: Wording,
    *,
    names: Mapping[str, str],
    than: str,
) -> str:
    """Write controls with their differences; ``than`` says what they are compared with."""
    return "; ".join(
        f"with {names[name]} the {words.error} is {words.amount(pairs[name])} than {than}"
        for name in chosen
    )


def _list(pairs: Mapping[str, PairedDifference], chosen: Sequence[str], words: Wording) -> str:
    """Write what took the place of the language model."""
    return list_controls(pairs, chosen, words, names=_NAMES, than="the pretrained model's")
