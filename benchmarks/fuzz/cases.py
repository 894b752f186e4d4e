"""Cases: what is tried at a door, what is expected, and how the outcome is counted."""

from __future__ import annotations

import re
import tempfile
import time
import traceback
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from sklearn.exceptions import NotFittedError
from sktime.exceptions import NotFittedError as SktimeNotFittedError

from tsllm.errors import TsllmError

#: The doors in the order of the report; each is a module of this package.
DOORS = (
    "estimators",
    "horizons",
    "tables",
    "files",
    "commands",
    "batch",
    "saved",
    "stores",
    "served",
    "streams",
    "evaluation",
)
#: The counts: the first two are good.
COUNTS = ("clear", "sane", "raw", "wrong", "hang")
BAD = COUNTS[2:]
#: A longer message is no sentence.
LONGEST_SENTENCE = 600

Expected = Literal["answer", "refusal", "either"]
T = TypeVar("T")


class RefutedError(Exception):
    """An answer that the oracle refutes."""


class RefusedError(Exception):
    """A refusal that is no exception: an exit code with a sentence, an HTTP status."""


class UnexplainedError(Exception):
    """A failure without a sentence: another exit code, another HTTP status."""


class Case:
    """One case: it draws the variant that it tries, and states what it expects.

    Parameters
    ----------
    rng : numpy.random.Generator
        Draws the variant.
    folder : Path
        An empty folder of its own.
    """

    def __init__(self, rng: np.random.Generator, folder: Path) -> None:
        self.rng = rng
        self.folder = folder
        self.drawn: dict[str, Any] = {}
        self.expected: Expected = "either"
        self.words: tuple[str, ...] = ()

    def pick(self, name: str, options: Sequence[T]) -> T:
        """Draw one of some options and note it."""
        value = options[int(self.rng.integers(len(options)))]
        self.drawn[name] = value
        return value

    def pick_named(self, name: str, options: dict[str, T]) -> T:
        """Draw one of some named options and note its name."""
        return options[self.pick(name, list(options))]

    def whole(self, name: str, low: int, high: int) -> int:
        """Draw a whole number from ``low`` to ``high`` and note it."""
        self.drawn[name] = int(self.rng.integers(low, high + 1))
        return self.drawn[name]

    def expect(self, expected: Expected, *words: str) -> None:
        """State what must come next; a refusal contains one of the words, if there are any."""
        self.expected, self.words = expected, words


Attack = Callable[[Case], None]


@dataclass
class Outcome:
    """How a case ended."""

    case: str
    attack: str
    drawn: str
    count: str
    said: str
    seconds: float = 0.0
    traceback: str = field(default="", repr=False)

    @property
    def door(self) -> str:
        """Return the door of the case."""
        return self.case.split(":")[0]

    def to_row(self) -> dict[str, Any]:
        """Return what the file of results keeps."""
        return {key: value for key, value in asdict(self).items() if key != "traceback"}


def check(holds: bool, sentence: str) -> None:
    """Raise where a statement of the oracle does not hold."""
    if not holds:
        raise RefutedError(sentence)


def attacks_of(door: str) -> list[Attack]:
    """List the attacks on a door."""
    attacks: list[Attack] = import_module(f"fuzz.{door}").ATTACKS
    return attacks


def run_case(door: str, number: int, seed: int) -> Outcome:
    """Run a case; the same seed draws the same variant.

    The attacks on a door take turns, so that a run of some cases tries all of them.
    """
    attacks = attacks_of(door)
    attack = attacks[number % len(attacks)]
    rng = np.random.default_rng([seed, zlib.crc32(door.encode()), number])
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="tsllm-fuzz-") as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case = Case(rng, Path(name))
        count, said, where = _outcome(attack, case)
    drawn = ", ".join(f"{key}={_short(value)}" for key, value in case.drawn.items())
    seconds = round(time.perf_counter() - begun, 2)
    return Outcome(
        f"{door}:{number}", attack.__name__, drawn, count, _short(said, 400), seconds, where
    )


def _outcome(attack: Attack, case: Case) -> tuple[str, str, str]:
    """Run an attack; return its count, what was said, and the traceback of a failure."""
    try:
        attack(case)
    except RefutedError as error:
        return "wrong", str(error), traceback.format_exc()
    except (TsllmError, RefusedError, NotFittedError, SktimeNotFittedError) as error:
        return (*_judge(str(error), case), traceback.format_exc())
    except BaseException as error:
        return "raw", f"{type(error).__name__}: {error}", traceback.format_exc()
    if case.expected == "refusal":
        return "wrong", "it was taken and must be refused", ""
    return "sane", "", ""


def _judge(sentence: str, case: Case) -> tuple[str, str]:
    """Count a refusal: it must be allowed, be a sentence and name what it is about."""
    if case.expected == "answer":
        return "wrong", f"ordinary input is refused: {sentence}"
    riddle = riddle_of(sentence)
    if riddle is not None:
        return "raw", f"{riddle}: {sentence}"
    if case.words and not any(word.lower() in sentence.lower() for word in case.words):
        return "raw", f"the sentence names none of {', '.join(case.words)}: {sentence}"
    return "clear", sentence


def riddle_of(sentence: str) -> str | None:
    """Say why a message is no clear sentence; None where it is one."""
    if len(sentence.strip()) < 10:
        return "no sentence"
    if "\n" in sentence.strip():
        return "several lines"
    if len(sentence) > LONGEST_SENTENCE:
        return f"a sentence of {len(sentence)} characters"
    if re.search(
        r"Traceback|object at 0x|a bug in tsllm|unexpected \w+(Error|Exception)", sentence
    ):
        return "not for a user"
    return None


def _short(value: object, most: int = 80) -> str:
    text = " ".join(str(value).split())
    return text if len(text) <= most else f"{text[: most - 3]}..."
