"""Plots of S²IP-LLM's joint space: anchors and tokens in a plane, alignment over training."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tsllm.arguments import check_choice
from tsllm.plotting.forecasts import label_epochs
from tsllm.plotting.style import COLOURS, axes_or_new, legend_below, text_size

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
    ax = axes_or_new(ax, 5.0)
    plane = _to_plane(np.concatenate([anchors, tokens]), method)
    rows, points = plane[: len(anchors)], plane[len(anchors) :]
    ax.scatter(*rows.T, s=8, color="0.75", label="anchors")
    ax.scatter(
        *points.T, s=16, facecolor="none", edgecolor=COLOURS[0], label="tokens of the series"
    )
    ax.scatter(
        *rows[chosen].T, s=90, color=COLOURS[1], edgecolor="black", marker="*",
        label="chosen anchors", zorder=3,
    )  # fmt: skip
    for row, name in zip(rows[chosen], names or []):
        ax.annotate(
            name, row, xytext=(5, 5), textcoords="offset points", fontsize=0.9 * text_size(ax)
        )
    ax.set_xlabel(f"{'PCA' if method == 'pca' else 't-SNE'} 1")
    ax.set_ylabel(f"{'PCA' if method == 'pca' else 't-SNE'} 2")
    legend_below(ax)
    return ax


def draw_similarities(
    similarities: Sequence[float], *, best_epoch: int | None = None, ax: Any = None
) -> Any:
    """Draw the mean cosine similarity of windows and their anchors over the epochs.

    ``best_epoch``, whose weights were kept, is marked.
    """
    ax = axes_or_new(ax, 3.4)
    ax.plot(
        np.arange(1, len(similarities) + 1),
        similarities,
        color=COLOURS[0],
        marker="o",
        ms=4,
        label="alignment",
    )
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
