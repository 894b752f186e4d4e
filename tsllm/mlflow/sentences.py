"""Errors for a client of a server, who has no Python and no command line.

The sentences of the library end with the argument or the option that helps. A client can only send
another request, so the remedies are replaced.
"""

import re

_LONGEST = 600  # characters of a sentence
_QUOTED, _KEPT = re.compile(r"(?<!\w)(?:'[^']*'|\"[^\"]*\")"), re.compile(r"\0(\d+)\0")
_LONG_WORD = re.compile(r"\S{100,}")
_IN_ORDER = r"send the rows of each \1 in the order of time"
_DATES = "send dates, such as 2024-01-31"
_MISSING_ROWS = "send the missing rows, with null where nothing was observed"
#: Patterns of the library's remedies, and what a client can do. They are applied in this order.
_REMEDIES = tuple(
    (re.compile(pattern), words)
    for pattern, words in (
        (r"pass sort=True (?:\([^)]*\) )?to sort each (\w+) by time", _IN_ORDER),
        (r"insert the (?:missing )?rows[^;]*?, or read the data with fill=.*", _MISSING_ROWS),
        (r"read the data (?:again )?with fill=.*", _MISSING_ROWS),
        (r",? or aggregate the rows of a step with resample=.*", ""),
        (r", (?:or )?name the column that tells series apart with id_col=", ", or name the series"),
        (
            r"convert text and categorical columns to numbers, NaN where a value is missing",
            "send numbers, with null where a value is missing",
        ),
        (
            r"replace infinite values with numbers, or with NaN to count them as missing",
            "send numbers, with null where a value is missing",
        ),
        (r"leave freq out, or convert the times with pd\..*", _DATES),
        (r"(?:read|write|give|make) [^;]*; if they count steps, pass freq=.*", _DATES),
        (r", or make them dates with pd\..*", ""),
        (
            r"pass the time zone of the series with tz=.*",
            "send all with one offset, or local times without one",
        ),
        (r"give it as future= \(--future\)[^;]*;.*", "send it in rows with future=true"),
        (r": pass X for the steps to forecast.*", ": send it in rows with future=true"),
        (r", in a table with resample=.*", ""),
        (r"pass ties=.*|, or pass ties=.*", ""),
        (r", for example with (?:drop_duplicates|sort_index|tz_localize)", ""),
        (r",? or convert (?:the index|the times) with \S+", ""),
        (r"pass the data to forecast from", "send its history"),
        (r" \((?:future=, )?--[^)]*\)", ""),
        (r", and others with format=.*", ""),
        (r"pass the frequency of the dates.*", "send integers that count steps"),
        (r"pass the frequency that the stamps have.*", "send stamps of the model's frequency"),
        (r", so fill it, for example with ffill.*", ": send one"),
        (r"read the ids as text \(dtype=str\)", "send the ids as text"),
        (r", or give a longer context_length", ""),
        (r"\bpass\b", "send"),
    )
)


def for_client(sentence: str) -> str:
    """Write an error of the library for the client of a server: one line, not too long.

    Quoted names and values stay as they are, unless they are long.

    Examples
    --------
    >>> for_client("row 3 is earlier than row 2; pass sort=True (--sort on the command line) to "
    ...            "sort each series by time")
    'row 3 is earlier than row 2; send the rows of each series in the order of time'
    """
    quoted: list[str] = []  # names and values of the request stay as they are

    def keep(found: re.Match[str]) -> str:
        quoted.append(found[0])
        return f"\0{len(quoted) - 1}\0"

    sentence = _QUOTED.sub(keep, " ".join(sentence.replace("\0", " ").split()))
    for pattern, words in _REMEDIES:
        sentence = pattern.sub(words, sentence)
    sentence = _KEPT.sub(lambda found: quoted[int(found[1])], sentence)
    sentence = _LONG_WORD.sub(lambda found: f"{found[0][:60]}...", sentence)
    sentence = sentence.strip().rstrip(";,:").strip()
    if len(sentence) > _LONGEST:
        half = _LONGEST // 2
        sentence = f"{sentence[:half]} ... {sentence[-half:]}"
    return sentence
