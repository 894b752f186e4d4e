"""Plots of S²IP-LLM's joint space: anchors and tokens in a plane, alignment over training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsllm.arguments import check_choice
from tsllm.plotting.forecasts import axes_or_new, label_epochs

METHODS = ("pca", "tsne")


def plot_joint_space(
    anchors: np.ndarray,
    tokens: np.ndarray,
    chosen: np.ndarray,
    names: Sequence[str] | None = None,
    *,
    method: str = "pca",
    ax: Any = None,
) -> Any:
    """Draw anchors and tokens, scaled to length 1, in a plane.

    ``chosen`` are rows of ``anchors`` to highlight, ``names`` their labels. ``method`` is "pca",
    the plane of greatest variance, or "tsne", scikit-learn's t-SNE.

    References
    ----------
    Z. Pan et al. (2024), "S²IP-LLM: Semantic Space Informed Prompt Learning with LLM for Time
    Series Forecasting", arXiv 2403.05798.
    """
    check_choice("method", method, METHODS)
    ax = axes_or_new(ax, (7.0, 5.0))
    plane = _to_plane(np.concatenate([anchors, tokens]), method)
    rows, points = plane[: len(anchors)], plane[len(anchors) :]
    ax.scatter(*rows.T, s=8, color="lightgrey", label="anchors")
    ax.scatter(*points.T, s=10, color="tab:blue", alpha=0.6, label="tokens of the series")
    ax.scatter(*rows[chosen].T, s=40, color="tab:red", marker="*", label="chosen anchors")
    for row, name in zip(rows[chosen], names or []):
        ax.annotate(name, row, xytext=(4, 4), textcoords="offset points", fontsize=8)
    ax.set_xlabel(f"{'PCA' if method == 'pca' else 't-SNE'} 1")
    ax.set_ylabel(f"{'PCA' if method == 'pca' else 't-SNE'} 2")
    ax.legend(frameon=False)
    return ax


def draw_similarities(
    similarities: Sequence[float], *, best_epoch: int | None = None, ax: Any = None
) -> Any:
    """Draw the mean cosine similarity of windows and their anchors over the epochs.

    ``best_epoch``, whose weights were kept, is marked.
    """
    ax = axes_or_new(ax, (6.0, 3.5))
    ax.plot(np.arange(1, len(similarities) + 1), similarities, marker="o", ms=3, label="alignment")
    label_epochs(ax, "cosine similarity to the chosen anchors", best_epoch)
    return ax


def _to_plane(rows: np.ndarray, method: str) -> np.ndarray:
    """Project rows to two dimensions by the angles between them: (rows, 2)."""
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    rows = rows / np.maximum(norms, 1e-12)  # (rows, width)
    plane: np.ndarray
    if method == "pca":
        from sklearn.decomposition import PCA

        plane = PCA(2, svd_solver="full").fit_transform(rows)
    else:
        from sklearn.manifold import TSNE

        near = min(30.0, (len(rows) - 1) / 3)
        plane = TSNE(2, perplexity=near, init="pca", random_state=0).fit_transform(rows)
    return plane
