"""Text encoders: vectors of texts, by a language model or as a bag of words."""

import re
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from tsllm.backbone import Backbone, load_backbone
from tsllm.embeddings import EmbeddingStore, open_store
from tsllm.errors import DataError, ModelFormatError
from tsllm.text.sentences import sentences_that_fit

#: The ``text_backbone`` that counts words and needs no language model.
BAG_OF_WORDS = "tfidf"
#: Other ways to write it, in small letters without spaces, hyphens and underscores.
_BAG_OF_WORDS_MEANT = frozenset(("tfidf", "bagofwords", "bow"))
#: Words of a bag: the most frequent ones that stand in at least this number of rows.
MOST_WORDS, FEWEST_TEXTS = 2000, 2
#: A word is a run of letters and digits, or one character of a script without spaces.
_UNSPACED = r"\u0e00-\u0eff\u1000-\u109f\u3040-\u30ff\u3400-\u9fff"
_WORD = rf"[^\W{_UNSPACED}]+|[{_UNSPACED}]"
_LANGUAGE_MODEL = "language model"


@dataclass(frozen=True)
class TextVectors:
    """Vectors of the distinct texts among some rows; many rows often share few texts."""

    #: (distinct texts, width): float32; a sparse matrix for a bag of words.
    vectors: np.ndarray | csr_matrix
    #: (rows,): the vector of each row, -1 where it has no text.
    numbers: np.ndarray

    @property
    def width(self) -> int:
        """Return the number of features of a vector."""
        return int(self.vectors.shape[1])

    @property
    def present(self) -> np.ndarray:
        """Return which rows have a text, bool (rows,)."""
        return self.numbers >= 0

    def rows(self, chosen: np.ndarray | slice) -> "TextVectors":
        """Return some rows, by positions or a mask; the vectors stay shared."""
        return replace(self, numbers=self.numbers[chosen])

    def dense(self) -> np.ndarray:
        """Return the vector of each row, (rows, width) float32; zeros where there is no text."""
        out = np.zeros((len(self.numbers), self.width), dtype=np.float32)
        found = self.vectors[self.numbers[self.present]]
        out[self.present] = found.toarray() if isinstance(found, csr_matrix) else found
        return out


class TextEncoder(ABC):
    """Turns texts into vectors. A text that is missing or blank is no text, and has no vector."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Return the number of features of a vector."""

    def encode(self, texts: Sequence[str | None]) -> TextVectors:
        """Compute the vectors of texts, each distinct one once.

        Parameters
        ----------
        texts : sequence of str or None
            Of any length. None and blank texts have no vector.

        Returns
        -------
        TextVectors
        """
        places: dict[str, int] = {}
        numbers = np.array(
            [-1 if text is None else places.setdefault(text, len(places)) for text in texts],
            dtype=np.int64,
        )
        vectors, empty = self._vectors(list(places))
        if empty.any():  # the others move up
            moved = np.append(np.where(empty, -1, np.cumsum(~empty) - 1), -1)
            return TextVectors(vectors[~empty], moved[numbers])
        return TextVectors(vectors, numbers)

    @abstractmethod
    def _vectors(self, texts: list[str]) -> tuple[np.ndarray | csr_matrix, np.ndarray]:
        """Compute vectors (texts, width) of distinct texts, and which of them are blank."""

    @abstractmethod
    def to_state(self) -> dict[str, Any]:
        """Return what a saved model holds of the encoder, as plain values and arrays."""

    @abstractmethod
    def summary(self) -> dict[str, Any]:
        """Summarise the encoder in plain values."""


@dataclass(frozen=True)
class LanguageModelEncoder(TextEncoder):
    """Averages the embeddings of a text's sentences; each sentence is embedded once, ever.

    Parameters
    ----------
    backbone : Backbone
        The language model.
    pooling : {"mean", "last_token"}
        The embedding of a sentence: the mean of its tokens' states, or the last one.
    store : EmbeddingStore
        Where embeddings are kept.
    progress : bool, default=False
        Whether to show a progress bar on stderr.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     encoder = make_encoder("random:bert?hidden=16&layers=1&heads=2", store=folder)
    ...     found = encoder.encode(["Rain. Wind.", None, "Wind.", "Rain. Wind.", " "])
    >>> found.vectors.shape, found.numbers.tolist(), encoder.pooling
    ((2, 16), [0, -1, 1, 0, -1], 'mean')
    """

    backbone: Backbone
    pooling: str
    store: EmbeddingStore
    progress: bool = False

    @property
    def width(self) -> int:
        """Return the width of the backbone."""
        return self.backbone.hidden_size

    def sentences(self, texts: Sequence[str | None]) -> list[str]:
        """Return the distinct sentences of texts, which are what is embedded."""
        given = list(dict.fromkeys(text for text in texts if text is not None))
        return list(
            dict.fromkeys(s for found in sentences_that_fit(given, self.backbone) for s in found)
        )

    def _vectors(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        split = sentences_that_fit(texts, self.backbone)
        counts = np.array([len(sentences) for sentences in split], dtype=np.int64)
        places: dict[str, int] = {}
        columns = [places.setdefault(s, len(places)) for sentences in split for s in sentences]
        if not places:
            return np.empty((len(texts), self.width), dtype=np.float32), counts == 0
        embedded = self.store.encode(
            list(places), self.backbone, pooling=self.pooling, progress=self.progress
        ).numpy()  # (sentences, width)
        if (counts == 1).all():
            return embedded[columns], counts == 0
        shares = np.repeat(1 / np.maximum(counts, 1), counts).astype(np.float32)
        borders = np.concatenate([[0], np.cumsum(counts)])
        average = csr_matrix((shares, columns, borders), shape=(len(texts), len(places)))
        return average @ embedded, counts == 0

    def to_state(self) -> dict[str, Any]:
        """Return what identifies the embeddings: backbone, digest and pooling."""
        return {"kind": _LANGUAGE_MODEL, "pooling": self.pooling, **self.backbone.to_state()}

    def summary(self) -> dict[str, Any]:
        """Summarise backbone, pooling and the counts of the store."""
        return {
            "backbone": self.backbone.spec,
            "backbone_quantisation": self.backbone.quantisation,
            "pooling": self.pooling,
            "embedding_store": self.store.stats(),
        }


@dataclass(frozen=True)
class BagOfWords(TextEncoder):
    """Counts words, weighted by their inverse document frequency; each vector has the length 1.

    Parameters
    ----------
    words : list of str
        The vocabulary.
    idf : array (words,)
        Their inverse document frequencies.

    Examples
    --------
    >>> bag = BagOfWords.learn(["light rain", "heavy rain", "heavy snow"])
    >>> bag.words, bag.encode(["rain", None]).dense().tolist()
    (['heavy', 'rain'], [[0.0, 1.0], [0.0, 0.0]])
    """

    words: list[str]
    idf: np.ndarray

    @classmethod
    def learn(cls, texts: Sequence[str | None]) -> "BagOfWords":
        """Learn the vocabulary of texts; a text that stands in several rows counts as often."""
        rows: dict[str, int] = {}
        for text in texts:
            if text is not None:
                rows[text] = rows.get(text, 0) + 1
        counter = CountVectorizer(token_pattern=_WORD, binary=True)
        try:
            holds = counter.fit_transform(rows)  # (distinct texts, words)
        except ValueError:  # scikit-learn's for texts without any word
            return cls([], np.empty(0))
        counts = np.array([*rows.values()])
        frequency = holds.T @ counts  # (words,) rows that hold a word
        kept = np.sort(np.argsort(-frequency, kind="stable")[:MOST_WORDS])
        kept = kept[frequency[kept] >= min(FEWEST_TEXTS, counts.sum())]
        idf = np.log((1 + counts.sum()) / (1 + frequency[kept])) + 1
        return cls(counter.get_feature_names_out()[kept].tolist(), idf)

    @property
    def width(self) -> int:
        """Return the number of words."""
        return len(self.words)

    def _vectors(self, texts: list[str]) -> tuple[csr_matrix, np.ndarray]:
        blank = np.array([not text.strip() for text in texts], dtype=bool)
        if not self.words or not texts:
            return csr_matrix((len(texts), self.width), dtype=np.float32), blank
        counter = TfidfVectorizer(
            token_pattern=_WORD, sublinear_tf=True, dtype=np.float32, vocabulary=self.words
        )
        counter.idf_ = self.idf
        return csr_matrix(counter.transform(texts), dtype=np.float32), blank

    def to_state(self) -> dict[str, Any]:
        """Return the vocabulary and its weights."""
        return {"kind": BAG_OF_WORDS, "words": list(self.words), "idf": self.idf}

    def summary(self) -> dict[str, Any]:
        """Summarise the vocabulary."""
        return {"backbone": BAG_OF_WORDS, "words": self.width}


def check_text_backbone(text_backbone: str) -> None:
    """Check that a ``text_backbone`` does not misspell the bag of words.

    Examples
    --------
    >>> check_text_backbone("TF-IDF")
    Traceback (most recent call last):
    tsllm.errors.DataError: text_backbone='TF-IDF' is no language model: did you mean 'tfidf'?
    """
    meant = re.sub(r"[\s_-]", "", str(text_backbone)).lower() in _BAG_OF_WORDS_MEANT
    if meant and text_backbone != BAG_OF_WORDS:
        raise DataError(
            f"text_backbone={text_backbone!r} is no language model: did you mean {BAG_OF_WORDS!r}?"
        )


def make_encoder(
    text_backbone: str,
    texts: Sequence[str | None] = (),
    *,
    store: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = False,
) -> TextEncoder:
    """Make the encoder that a ``text_backbone`` argument names.

    Parameters
    ----------
    text_backbone : str
        A language model, as for `load_backbone`, or ``"tfidf"`` for a bag of words.
    texts : sequence of str or None, default=()
        The training texts, which a bag of words learns its vocabulary from.
    store : EmbeddingStore, path or None, default=None
        Where embeddings are kept.
    device : str, default="auto"
        The device of the language model.
    dtype : str, default="auto"
        The precision of the language model.
    progress : bool, default=False
        Whether to show a progress bar on stderr.

    Returns
    -------
    TextEncoder

    Raises
    ------
    BackboneNotFoundError
        No place holds the language model.
    """
    check_text_backbone(text_backbone)
    if text_backbone == BAG_OF_WORDS:
        return BagOfWords.learn(texts)
    backbone = load_backbone(text_backbone, device=device, dtype=dtype)
    return LanguageModelEncoder(backbone, pooling_of(backbone), open_store(store), progress)


def embed_ahead(
    texts: Sequence[str | None],
    text_backbone: str,
    *,
    store: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = False,
) -> dict[str, Any]:
    """Embed the sentences of texts, so that a fit or a forecast finds them in the store.

    The arguments are those of `make_encoder`, and the result is that of
    `AutoTimesForecaster.embed`: the number of ``texts`` (distinct sentences), how many were
    ``computed`` now, ``seconds``, and the ``path`` of the store.

    Raises
    ------
    DataError
        The backbone is a bag of words, or there is no text.

    Examples
    --------
    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     done = embed_ahead(["Rain.", "Rain. Wind."], "random:bert", store=folder)
    >>> done["texts"], done["computed"]
    (2, 2)
    """
    check_text_backbone(text_backbone)
    if text_backbone == BAG_OF_WORDS:
        raise DataError("a bag of words embeds nothing ahead of time: name a language model")
    started = time.perf_counter()
    encoder = make_encoder(
        text_backbone, store=store, device=device, dtype=dtype, progress=progress
    )
    assert isinstance(encoder, LanguageModelEncoder)  # no bag of words
    sentences = encoder.sentences(texts)
    if not sentences:
        raise DataError("the columns hold no text: there is nothing to embed")
    before = encoder.store.stats()["misses"]
    encoder.store.encode(
        sentences, encoder.backbone, pooling=encoder.pooling, progress=encoder.progress
    )
    return {
        "texts": len(sentences),
        "computed": encoder.store.stats()["misses"] - before,
        "seconds": time.perf_counter() - started,
        "path": str(encoder.store.path),
    }


def restore_encoder(
    state: Mapping[str, Any],
    text_backbone: str,
    *,
    store: Any = None,
    device: str = "auto",
    dtype: str = "auto",
    progress: bool = False,
) -> TextEncoder:
    """Build an encoder from the output of `TextEncoder.to_state`.

    ``text_backbone`` names the place of the language model; the other arguments are those of
    `make_encoder`.

    Raises
    ------
    BackboneMismatchError
        The language model is not the one that the saved model was fitted with.
    BackboneNotFoundError
        No place holds it.
    ModelFormatError
        The state is not one of an encoder.
    """
    kind = state.get("kind")
    if kind == BAG_OF_WORDS:
        words, idf = state.get("words"), np.asarray(state.get("idf"))
        if (
            not isinstance(words, list)
            or not all(isinstance(word, str) for word in words)
            or idf.shape != (len(words),)
            or not (np.abs(idf) <= np.finfo(np.float32).max).all()
        ):
            raise ModelFormatError("the saved model's bag of words has no weight for each word")
        return BagOfWords(words, idf)
    if kind != _LANGUAGE_MODEL or state.get("pooling") not in ("mean", "last_token"):
        raise ModelFormatError(f"the saved model reads texts in an unknown way, {kind!r}")
    check_text_backbone(text_backbone)
    if text_backbone == BAG_OF_WORDS:
        raise DataError(
            f"the model reads its texts with the language model {state['spec']}: pass its place as "
            "text_backbone=..., or fit anew"
        )
    backbone = load_backbone(text_backbone, device=device, dtype=dtype)
    backbone.check_state(state, "text_backbone")
    return LanguageModelEncoder(backbone, state["pooling"], open_store(store), progress)


def pooling_of(backbone: Backbone) -> str:
    """Return the pooling that fits a backbone: "mean" for encoders, which sentence models are.

    Of a decoder only the last token has read the whole text.
    """
    return "last_token" if backbone.natively_causal else "mean"
