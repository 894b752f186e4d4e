"""Texts of any length and language, split into sentences that a language model can read."""

import re
from collections.abc import Sequence

from tsllm.backbone import Backbone

#: Most tokens of a sentence, also for a backbone that reads more: attention takes memory of the
#: square of them.
MOST_TOKENS = 512
#: An ASCII text has at most one token a character, and a tokenizer adds a few of its own.
ADDED_TOKENS = 8

#: Control characters that are no white space: tokenizers drop them or fail.
_CONTROLS = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]+")
#: The end of a line, of a sentence before white space, or of a sentence in a script without spaces.
_ENDS = re.compile(
    r"[\r\n\u2028\u2029]+"
    r"|[.!?\u2026\u061f\u06d4\u0964\u0965\u1362]+[\"'\u201d\u2019\u00bb)\]]*(?=\s)"
    r"|[\u3002\uff01\uff1f\uff61]+[\u201d\u2019\u300d\u300f\uff09]*"
)
#: A full stop after an initial or between initials: "J.", "U.S.", "e.g."
_INITIALS = re.compile(r"(?:^|[\s(])(?:\w\.)*\w\.$")
#: Characters before a full stop in which initials are looked for.
_LOOK_BACK = 16


def split_sentences(text: str) -> list[str]:
    r"""Split a text into its sentences, with single spaces between their words.

    A sentence ends at the end of a line, at ``.``, ``!``, ``?`` and their like in other scripts
    before a space, and at the full stops of scripts that have no spaces. A full stop after initials
    or before a small letter ends none.

    Parameters
    ----------
    text : str

    Returns
    -------
    list of str
        None of them is empty; an empty list for a text without any visible character.

    Examples
    --------
    >>> split_sentences("Rain at 3.5 mm.  Wind from the N.E. turns.\nCalm")
    ['Rain at 3.5 mm.', 'Wind from the N.E. turns.', 'Calm']
    """
    text = _CONTROLS.sub(" ", text)
    sentences = []
    first = 0
    for end in _ENDS.finditer(text):
        if end.group().startswith(".") and _goes_on(text, end):
            continue
        sentences.append(text[first : end.end()])
        first = end.end()
    sentences.append(text[first:])
    words = (" ".join(sentence.split()) for sentence in sentences)
    return [sentence for sentence in words if sentence]


def sentences_that_fit(texts: Sequence[str], backbone: Backbone) -> list[list[str]]:
    """Split texts into sentences that a backbone can read whole.

    A sentence of too many tokens is halved at the space next to its middle, and again where needed.
    Sentences without any token are left out.

    Parameters
    ----------
    texts : sequence of str
    backbone : Backbone

    Returns
    -------
    list of list of str
        The sentences of each text.

    Examples
    --------
    >>> from tsllm.backbone import load_backbone
    >>> backbone = load_backbone("random:gpt2?hidden=8&layers=1&heads=1&positions=16", device="cpu")
    >>> sentences_that_fit(["Snow. Wind from the north east."], backbone)
    [['Snow.', 'Wind from the', 'north east.']]
    """
    split = [split_sentences(text) for text in texts]
    limit = min(MOST_TOKENS, backbone.max_positions or MOST_TOKENS)
    distinct = dict.fromkeys(sentence for sentences in split for sentence in sentences)
    doubtful = [s for s in distinct if not (s.isascii() and len(s) + ADDED_TOKENS <= limit)]
    if not doubtful:
        return split
    pieces = _cut(doubtful, backbone, limit)
    return [
        [piece for sentence in sentences for piece in pieces.get(sentence, [sentence])]
        for sentences in split
    ]


def _goes_on(text: str, end: re.Match[str]) -> bool:
    """Return whether a sentence goes on after a full stop."""
    following = text[end.end() : end.end() + 2].lstrip()
    if following[:1].islower():
        return True
    before = text[max(0, end.start() - _LOOK_BACK) : end.start() + 1]
    return _INITIALS.search(before) is not None


def _cut(sentences: Sequence[str], backbone: Backbone, limit: int) -> dict[str, list[str]]:
    """Cut sentences into pieces of at most ``limit`` tokens."""
    pieces = {sentence: [sentence] for sentence in sentences}
    counts: dict[str, int] = {}
    waiting = list(sentences)
    while waiting:
        counts.update(zip(waiting, backbone.token_counts(waiting), strict=True))
        for sentence, parts in pieces.items():
            pieces[sentence] = [
                half
                for part in parts
                for half in (_halves(part) if counts[part] > limit else [part])
            ]
        found = {part for parts in pieces.values() for part in parts}
        waiting = sorted(found - counts.keys())
    return {s: [part for part in parts if counts[part]] for s, parts in pieces.items()}


def _halves(text: str) -> list[str]:
    """Cut a text at the space next to its middle, or in the middle of a text without spaces."""
    if len(text) < 2:
        return [text]  # nothing is left to cut: the backbone's own error names it
    middle = len(text) // 2
    left, right = text.rfind(" ", 0, middle), text.find(" ", middle)
    spaces = [place for place in (left, right) if place > 0]
    place = min(spaces, key=lambda one: abs(one - middle), default=middle)
    return [half for half in (text[:place].strip(), text[place:].strip()) if half]
