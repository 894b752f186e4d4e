"""The variants of an ablation of text: a forecaster whose texts are changed or left out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from tsllm.backbone.specs import UNNAMED_SEEDS, with_random_weights
from tsllm.errors import DataError
from tsllm.evaluation.holdout import Holdout
from tsllm.evaluation.methods import Method
from tsllm.evaluation.variants import NONE, PRETRAINED, VariantMethod, Variants
from tsllm.forecasters.base import SeriesForecaster
from tsllm.text import BAG_OF_WORDS, LanguageModelEncoder

SHUFFLED, PAST, RANDOM = "shuffled", "past", "random"
#: The variants besides "pretrained" and "none", which always run.
TEXT_VARIANTS = (SHUFFLED, PAST, BAG_OF_WORDS, RANDOM)
#: Those that put something in place of the language model.
TEXT_REPLACEMENTS = (BAG_OF_WORDS, RANDOM)


class TextVariantMethod(VariantMethod):
    """A forecaster that reads texts in one of the ways that are compared.

    ``X`` are its covariates. With ``shuffle``, the texts of these columns stand in random order
    within each series, in another one for each seed.
    """

    def __init__(
        self,
        template: SeriesForecaster,
        holdout: Holdout,
        longest: int,
        *,
        X: pd.DataFrame | None,
        by_seed: Callable[[int], Mapping[str, Any]] | None = None,
        shuffle: Sequence[str] = (),
    ) -> None:
        super().__init__(template, holdout, longest, by_seed=by_seed)
        self._X = self._in_order = X
        self._shuffle = tuple(shuffle)

    def fit(self, ends: np.ndarray, seed: int | None) -> None:
        """Fit a clone on the steps of each series before ``ends``."""
        if self._shuffle:
            assert self._in_order is not None  # it has the texts
            self._X = shuffled_texts(self._in_order, self._shuffle, seed or 0)
        super().fit(ends, seed)

    def costs(self) -> dict[str, float]:
        """Return the costs of the forecaster and the language model that reads the texts."""
        found = super().costs()
        covariates = self._fitted.fitted_.covariates
        texts = None if covariates is None else covariates.texts
        if texts is not None and isinstance(texts.encoder, LanguageModelEncoder):
            backbone = texts.encoder.backbone
            found["frozen_parameters"] += backbone.parameter_count
            found["weights_mib"] += backbone.weight_bytes / 2**20
        return found


def make_text_variants(
    estimator: Any, holdout: Holdout, longest: int, text: Sequence[str], wanted: Sequence[str]
) -> Variants:
    """Make the variants of a forecaster that reads the columns ``text``, itself first.

    ``wanted`` are names of `TEXT_VARIANTS`; "pretrained" and "none" are always made.
    """
    _check(estimator, holdout.X, text, wanted)
    X = holdout.X
    assert X is not None  # checked
    given = estimator.get_params(deep=False)
    model = given["text_backbone"]
    past = tuple(given.get("past_covariates") or ())
    reads = estimator.clone().set_params(text_covariates=tuple(text))
    left_out: dict[str, str] = {}
    notes = []

    def variant(template: SeriesForecaster = reads, **more: Any) -> TextVariantMethod:
        return TextVariantMethod(template, holdout, longest, **{"X": X, **more})

    methods: dict[str, Method] = {PRETRAINED: variant()}
    if RANDOM in wanted:
        methods[RANDOM] = variant(
            by_seed=lambda seed: {"text_backbone": with_random_weights(model, seed + UNNAMED_SEEDS)}
        )
    if BAG_OF_WORDS in wanted:
        methods[BAG_OF_WORDS] = variant(reads.clone().set_params(text_backbone=BAG_OF_WORDS))
    if SHUFFLED in wanted:
        methods[SHUFFLED] = variant(shuffle=text)
        notes.append(
            "shuffled: fitted and tested on the texts of each series in random order, another one "
            "for each seed"
        )
    future = [column for column in text if column not in past]
    if PAST in wanted and not future:
        left_out[PAST] = "all texts are known up to the origin only"
    elif PAST in wanted:
        methods[PAST] = variant(reads.clone().set_params(past_covariates=(*past, *future)))
        notes.append("past: the texts after the origin of a forecast are not shown")
    rest = X.drop(columns=list(text))
    without = {"text_covariates": ()}
    if "past_covariates" in given:
        without["past_covariates"] = tuple(name for name in past if name not in text)
    methods[NONE] = variant(
        estimator.clone().set_params(**without), X=rest if rest.shape[1] else None
    )
    if future:
        notes.append(
            "the future texts are those that the data hold, even where only a forecast of them "
            "would have been known"
        )
    return Variants(methods, left_out, notes)


def shuffled_texts(X: pd.DataFrame, columns: Sequence[str], seed: int) -> pd.DataFrame:
    """Return covariates with the texts of each series in random order; other columns stay.

    Examples
    --------
    >>> X = pd.DataFrame({"report": ["rain", "sun", "fog"], "day": [1, 2, 3]})
    >>> shuffled_texts(X, ["report"], 1)["report"].tolist()
    ['fog', 'rain', 'sun']
    """
    X = X.copy()
    series = np.zeros(len(X), dtype=int)
    if X.index.nlevels > 1:
        levels = list(range(X.index.nlevels - 1))
        series = X.groupby(level=levels, sort=False).ngroup().to_numpy()
    rng = np.random.default_rng(seed)
    rows = np.arange(len(X))
    for number in range(series.max(initial=-1) + 1):
        own = series == number
        rows[own] = rng.permutation(rows[own])
    for column in columns:
        X[column] = X[column].to_numpy()[rows]
    return X


def _check(
    estimator: Any, X: pd.DataFrame | None, text: Sequence[str], wanted: Sequence[str]
) -> None:
    """Raise an error for unknown variants or columns, and for estimators that read no text."""
    unknown = [variant for variant in wanted if variant not in TEXT_VARIANTS]
    if unknown:
        raise DataError(
            f"variants of text must be among {', '.join(TEXT_VARIANTS)}, found {unknown[0]!r}; "
            "'pretrained' and 'none' always run"
        )
    if not isinstance(estimator, SeriesForecaster) or "text_covariates" not in (
        estimator.get_params(deep=False)
    ):
        raise DataError(
            f"estimator must be a tsllm forecaster that reads text, found "
            f"{type(estimator).__name__}: wrap another forecaster in TextContext"
        )
    if estimator.get_params(deep=False)["text_backbone"] == BAG_OF_WORDS:
        raise DataError(
            "estimator has text_backbone='tfidf', so there is no language model to judge: set "
            "text_backbone to one"
        )
    if X is None:
        raise DataError("text names columns of X and X is missing: pass the texts as X")
    if not text:
        raise DataError("text is empty: name at least one column of X")
    for column in text:
        if column not in X.columns:
            raise DataError(
                f"text names the column {column!r}, and X has "
                f"{', '.join(repr(str(name)) for name in X.columns)}"
            )
