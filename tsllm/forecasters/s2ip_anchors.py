"""What S²IP-LLM shows of its anchors: their words, where they lie, how training drew them near."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import torch

from tsllm.adapters.s2ip import Alignment, S2IPModel
from tsllm.context import Context, batch_contexts
from tsllm.errors import DataError
from tsllm.forecasters.checks import check_same_series
from tsllm.forecasters.direct import DirectForecaster
from tsllm.forecasters.exogenous import join_covariates
from tsllm.forecasters.frames import split_series
from tsllm.forecasters.parameters import check_whole
from tsllm.forecasters.vocabulary import nearest_words


class ShowsAnchors(DirectForecaster):
    """A forecaster whose model is prompted with anchors, and what it shows of them."""

    def anchors(self, y: Any = None, *, X: Any = None, top: int = 5) -> pd.DataFrame:
        """Name the anchors that prompt the forecast of each series, by their nearest words.

        Parameters
        ----------
        y : Series or DataFrame, optional
            The histories to look at, as `fit` takes them. None: those that this forecaster keeps.
        X : DataFrame, optional
            Their covariates, where the model was fitted with some.
        top : int
            Words to name an anchor with.

        Returns
        -------
        DataFrame
            One row per chosen anchor of each series and variable: ``series_id``, ``variable``,
            ``rank`` (1: the closest), ``anchor`` (its number in the pool), ``similarity`` (cosine,
            to the window's mean token), ``words`` and ``word_similarities`` (lists; cosine, of
            anchor and word embedding, the closest first).

        Raises
        ------
        DataError
            The model was fitted without a language model, ``top`` is no positive whole number, or
            a series does not fit the model.
        """
        self.check_is_fitted()
        check_whole("top", top)
        state = self.fitted_
        if state.backbone is None:
            raise DataError(
                "anchors are named by the language model's words, and backbone=None has none: fit "
                "with a backbone"
            )
        contexts = self._known_or(y, X)
        aligned = self._align(contexts)
        chosen, place = aligned.found.indices.unique(return_inverse=True)  # place: (samples, k)
        words, cosines = nearest_words(aligned.pool[chosen], state.backbone, top)
        owners = [(c.series_id, v) for c in contexts for v in self._layout.columns]
        similarities = aligned.found.similarities.tolist()
        return pd.DataFrame(
            [
                {
                    "series_id": series_id,
                    "variable": variable,
                    "rank": rank + 1,
                    "anchor": int(chosen[number]),
                    "similarity": similarities[row][rank],
                    "words": words[number],
                    "word_similarities": cosines[number],
                }
                for row, (series_id, variable) in enumerate(owners)
                for rank, number in enumerate(place[row].tolist())
            ]
        )

    def plot_anchors(
        self, y: Any = None, *, X: Any = None, method: str = "pca", ax: Any = None
    ) -> Any:
        """Draw anchors and the series' tokens in one plane, those chosen with their words.

        Rows are scaled to length one first: it is by angle that anchors are chosen.

        Parameters
        ----------
        y : Series or DataFrame, optional
            The histories to draw, as `fit` takes them. None: those that this forecaster keeps.
        X : DataFrame, optional
            Their covariates, where the model was fitted with some.
        method : {"pca", "tsne"}
            How the plane is found.
        ax : matplotlib Axes, optional
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes

        Raises
        ------
        DataError
            An unknown method, or a series that does not fit the model.
        """
        from tsllm.plotting_anchors import plot_joint_space

        self.check_is_fitted()
        aligned = self._align(self._known_or(y, X))
        chosen = aligned.found.indices.unique()
        backbone = self.fitted_.backbone
        names = None
        if backbone is not None:
            nearest, _ = nearest_words(aligned.pool[chosen], backbone, 1)
            names = [" ".join(words) for words in nearest]
        return plot_joint_space(
            aligned.pool.detach().cpu().numpy(),
            aligned.tokens.flatten(0, 1).cpu().numpy(),
            chosen.cpu().numpy(),
            names,
            method=method,
            ax=ax,
        )

    def plot_alignment(self, ax: Any = None) -> Any:
        """Draw how similar windows and their anchors became in training.

        Parameters
        ----------
        ax : matplotlib Axes, optional
            Where to draw; None makes a new figure.

        Returns
        -------
        matplotlib Axes
            The mean cosine similarity over the epochs.
        """
        from tsllm.plotting_anchors import plot_alignment

        self.check_is_fitted()
        similarities = [h["similarity"] / self.prompt_length for h in self.fitted_.history]
        return plot_alignment(similarities, best_epoch=self.fitted_.best_epoch, ax=ax)

    def _known_or(self, y: Any, X: Any) -> list[Context]:
        """Give the contexts of `y`, or those that this forecaster keeps."""
        if y is not None:
            contexts = split_series(y, freq=self._known_frequency())
            check_same_series(self.fitted_, contexts)
            contexts = join_covariates(contexts, X, self.fitted_.covariates)
            return self.fitted_.remainders(contexts)
        if not self._contexts:
            raise DataError(
                "the model was saved without its context: pass the recent past of the series as y"
            )
        return self.fitted_.remainders(list(self._contexts.values()))

    @torch.inference_mode()
    def _align(self, contexts: Sequence[Context]) -> Alignment:
        """Let the model show where contexts lie among its anchors."""
        state = self.fitted_
        assert isinstance(state.model, S2IPModel)  # _build_model made it
        tails = [self._arrange_context(state, context) for context in contexts]
        batch = batch_contexts(tails, state.shape.context_length).to(state.device)
        return state.model.align(batch.values, batch.mask)
