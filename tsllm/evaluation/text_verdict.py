"""The verdict of an ablation of text in plain words, by stated rules."""

import math
from collections.abc import Mapping, Sequence

from tsllm.evaluation.paired import PairedDifference
from tsllm.evaluation.text_variants import PAST, RANDOM, SHUFFLED, TEXT_REPLACEMENTS
from tsllm.evaluation.variants import NONE, PRETRAINED
from tsllm.evaluation.verdict import Verdict, Wording, classify, in_percent, list_controls
from tsllm.text import BAG_OF_WORDS

#: The meaning of each answer.
TEXT_ANSWERS = {
    "yes": "the text helps, and no bag of words or random weights do as well",
    "text": "the text helps, and needs no language model",
    "unclear": "the text helps, and whether the language model does cannot be told",
    "undecided": "no difference between with and without text can be told",
    "no": "the text makes no difference that matters",
    "harm": "the forecasts are better without the text",
}
_NAMES = {
    BAG_OF_WORDS: "a bag of words",
    RANDOM: "the language model with random weights",
    SHUFFLED: "the same texts in random order",
}


def judge_text(
    controls: Mapping[str, PairedDifference],
    *,
    min_difference: float,
    strict: Mapping[str, PairedDifference] | None = None,
    wording: Wording | None = None,
) -> Verdict:
    """Judge whether the text helps, and whether the language model that reads it does.

    Each control's difference from the pretrained variant has a class, "same", "worse", "better" or
    "open"; see `tsllm.evaluation.verdict.judge`. The answer is the first that applies:

    1. "harm": the variant without text is better.
    2. "no" or "undecided": the variant without text is the same, or open.
    3. "no": texts in random order are the same or better, so their content is not what helps.
    4. "text": a bag of words, or random weights, are the same, or better by intervals corrected
       for the number of these replacements.
    5. "yes": there are replacements, and every one is worse.
    6. "unclear": anything else.

    Parameters
    ----------
    controls : mapping of str to PairedDifference
        Each control less the pretrained variant: "none", and those of "shuffled", "tfidf" and
        "random" that were run.
    min_difference : float
        As a share of the pretrained variant's error.
    strict : mapping or None, default=None
        The replacements with corrected intervals. None: no correction is needed.
    wording : Wording or None, default=None
        None: percents of an error.

    Returns
    -------
    Verdict
    """
    words = wording or in_percent("error")
    classes = {name: classify(pair, min_difference) for name, pair in controls.items()}
    replaced = [name for name in TEXT_REPLACEMENTS if name in controls]
    corrected = controls if strict is None else strict
    better = [name for name in replaced if classify(corrected[name], min_difference) == "better"]
    without = f"without it the {words.error} is {words.amount(controls[NONE])}"
    more = f" In place of the language model: {_list(controls, better, words)}." if better else ""
    if classes[NONE] == "better":
        return Verdict("harm", f"No. On this data the text does harm: {without}.{more}")
    if classes[NONE] == "same":
        return Verdict(
            "no",
            f"No. On this data the text makes no difference that matters: {without}, and less than "
            f"{words.least(min_difference)} counts as none.{more}",
        )
    if classes[NONE] == "open":
        if math.isnan(controls[NONE].relative_lower):
            why = "the test part is too short for an interval: use a longer one"
        else:
            why = "more windows would narrow the interval"
        return Verdict(
            "undecided",
            f"Undecided: {without}, which may be chance; {why}.{more}",
        )
    if classes.get(SHUFFLED) in ("same", "better"):
        return Verdict(
            "no",
            f"Not the content of the texts: {without}, but {_list(controls, [SHUFFLED], words)}.",
        )
    as_good = [name for name in replaced if name in better or classes[name] == "same"]
    if as_good:
        rest = _list(controls, as_good, words)
        return Verdict(
            "text", f"The text helps, the language model does not: {without}, but {rest}."
        )
    if not replaced:
        return Verdict(
            "unclear",
            f"The text helps: {without}. Whether the language model does cannot be told, for no "
            "variant put something else in its place.",
        )
    unsure = [name for name in replaced if classes[name] != "worse"]
    if unsure:
        return Verdict(
            "unclear",
            f"The text helps: {without}. Whether the language model does cannot be told: "
            f"{_list(controls, unsure, words)}.",
        )
    return Verdict(
        "yes",
        f"Yes. The text helps, and so does the language model: {without}; "
        f"{_list(controls, replaced, words)}.",
    )


def judge_past(
    pairs: Mapping[tuple[str, str], PairedDifference], *, min_difference: float, words: Wording
) -> list[str]:
    """Report what the texts are worth where they are known up to the origin only."""
    beside = pairs.get((PAST, NONE))
    if beside is None:
        return []
    found = {
        "better": "Texts that are known up to the origin only help as well",
        "worse": "Texts that are known up to the origin only do harm",
        "same": "Texts that are known up to the origin only make no difference that matters",
        "open": "Whether texts that are known up to the origin only help cannot be told",
    }[classify(beside, min_difference)]
    return [
        f"{found}: with them the {words.error} is {words.amount(beside)} than without text, and "
        f"{words.amount(pairs[PAST, PRETRAINED])} than with the texts to come."
    ]


def _list(pairs: Mapping[str, PairedDifference], chosen: Sequence[str], words: Wording) -> str:
    """Write what took the place of the language model or of the texts."""
    return list_controls(
        pairs, chosen, words, names=_NAMES, than="with the pretrained language model"
    )
