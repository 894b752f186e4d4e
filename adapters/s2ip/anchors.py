"""Semantic anchors: pools of word embeddings, the anchors nearest to a patch, and k-means."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

ANCHORS = ("free", "prototypes", "clusters")

#: Standard deviation of anchors without word embeddings: that of untrained GPT-2's embeddings.
_SCALE_WITHOUT_WORDS = 0.02
#: Points whose distances to all centres are in memory at once.
_ROWS_AT_ONCE = 16384


class Retrieved(NamedTuple):
    """The anchors that are closest to each query."""

    anchors: Tensor
    """(samples, count, width): the rows themselves, the closest first."""
    similarities: Tensor
    """(samples, count): cosine similarities, falling."""
    indices: Tensor
    """(samples, count), int64: numbers of the rows."""


def retrieve(query: Tensor, anchors: Tensor, count: int) -> Retrieved:
    """Find the ``count`` anchors of highest cosine similarity (arXiv 2403.05798, section 3.2).

    ``query`` is (samples, width), ``anchors`` are (pool_size, width). Gradients flow through the
    anchors and similarities found.

    Examples
    --------
    >>> pool = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]])
    >>> found = retrieve(torch.tensor([[0.0, 5.0]]), pool, 2)
    >>> found.indices.tolist(), found.anchors.tolist()
    ([[1, 2]], [[[0.0, 2.0], [3.0, 3.0]]])
    """
    keys = functional.normalize(anchors, dim=-1)  # (pool_size, width)
    cosines = functional.normalize(query, dim=-1) @ keys.T  # (samples, pool_size)
    similarities, indices = cosines.topk(count, dim=-1)  # (samples, count)
    return Retrieved(anchors[indices], similarities, indices)


def build_anchors(
    kind: str, pool_size: int, width: int, words: Tensor | None
) -> "FreeAnchors | PrototypeAnchors | ClusterAnchors":
    """Build the module that maps word embeddings (vocab, width) to anchors (pool_size, width).

    Without word embeddings only "free" is possible, with random rows.

    Raises
    ------
    ValueError
        For an unknown kind, a kind that needs word embeddings where there are none, and more
        clusters than words.

    Examples
    --------
    >>> words = torch.randn(50, 8)
    >>> build_anchors("clusters", 4, 8, words)(words).shape
    torch.Size([4, 8])
    """
    if kind not in ANCHORS:
        raise ValueError(f"anchors must be one of {list(ANCHORS)}, got {kind!r}")
    if words is None:
        if kind != "free":
            raise ValueError(
                f"anchors={kind!r} are made of word embeddings, and backbone=None has none; "
                "use anchors='free'"
            )
        return FreeAnchors(torch.randn(pool_size, width) * _SCALE_WITHOUT_WORDS)
    if kind == "clusters":
        return ClusterAnchors(cluster_centres(words, pool_size))
    prototypes = PrototypeAnchors(pool_size, words.shape[0])
    if kind == "prototypes":
        return prototypes
    with torch.no_grad():
        return FreeAnchors(prototypes.to(words.device)(words).cpu())


class PrototypeAnchors(nn.Module):
    """Trained mixtures of all words: a linear layer from the vocabulary, as published.

    The layer has ``pool_size * vocab`` weights and needs ``2 * vocab * pool_size * width``
    operations in a forward pass. The word embeddings have rank ``width`` at most, so each of its
    anchors can also be reached by `FreeAnchors`. Under `torch.no_grad` in evaluation mode the
    anchors are computed once.
    """

    def __init__(self, pool_size: int, vocab_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(vocab_size, pool_size)
        self._kept: _Kept | None = None

    def forward(self, words: Tensor) -> Tensor:
        """Compute anchors (pool_size, width) from word embeddings (vocab, width)."""
        if self.training or torch.is_grad_enabled():
            return self._mix(words)
        kept = self._kept  # read once: another thread may delete it
        sources = (self.linear.weight, self.linear.bias, words)
        stamps = tuple((tensor.data_ptr(), tensor._version) for tensor in sources)
        # Tensors that were replaced or changed in place, apart from `train` and `_apply`.
        if (
            kept is None
            or kept.stamps != stamps
            or any(old is not new for old, new in zip(kept.sources, sources))
        ):
            kept = self._kept = _Kept(self._mix(words), sources, stamps)
        return kept.rows

    def train(self, mode: bool = True) -> "PrototypeAnchors":
        """Set the mode, and delete the anchors that were kept."""
        self._kept = None
        return super().train(mode)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "PrototypeAnchors":
        self._kept = None
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}

    def _mix(self, words: Tensor) -> Tensor:
        # linear(words.T).T, without transposing the large matrix.
        return self.linear.weight @ words.to(self.linear.weight.dtype) + self.linear.bias[:, None]


class _Kept(NamedTuple):
    """Prototypes, and the tensors that they were computed from."""

    rows: Tensor
    sources: tuple[Tensor, ...]
    stamps: tuple[tuple[int, int], ...]


class FreeAnchors(nn.Module):
    """Anchors that are trained themselves, from ``rows`` (pool_size, width) on."""

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.rows = nn.Parameter(rows)

    def forward(self, words: Tensor | None) -> Tensor:
        """Return the anchors (pool_size, width); the word embeddings are not used."""
        return self.rows


class ClusterAnchors(nn.Module):
    """Frozen anchors: ``centres`` (pool_size, width) of words of similar meaning."""

    centres: Tensor

    def __init__(self, centres: Tensor) -> None:
        super().__init__()
        self.register_buffer("centres", centres)

    def forward(self, words: Tensor | None) -> Tensor:
        """Return the anchors (pool_size, width); the word embeddings are not used."""
        return self.centres


@torch.no_grad()
def cluster_centres(words: Tensor, count: int, *, iterations: int = 10) -> Tensor:
    """Cluster words (vocab, width) by k-means from fixed seeds: (count, width), float32 on the CPU.

    Examples
    --------
    >>> words = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> sorted(cluster_centres(words, 2).flatten().tolist())
    [1.0, 11.0]
    """
    if count > len(words):
        raise ValueError(
            f"pool_size={count} clusters are more than the {len(words)} words of the backbone; "
            "use a smaller pool_size"
        )
    generator = torch.Generator().manual_seed(0)
    first = torch.randperm(len(words), generator=generator)[:count]
    return move_centres(words, words[first.to(words.device)].float(), iterations)[0].cpu()


def kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cluster points from k-means++ seeds (Arthur and Vassilvitskii, SODA 2007, section 2.2).

    Returns the centres (clusters, size) of ``points`` (n, size), and the number of points of each
    (clusters,). Fewer distinct points than clusters give fewer.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> centres, sizes = kmeans(points, 2, torch.Generator().manual_seed(0))
    >>> sorted(centres.flatten().tolist()), sizes.tolist()
    ([1.0, 11.0], [2, 2])
    """
    first = 0
    if clusters > 1:  # one centre is the mean, wherever it starts
        first = int(torch.randint(len(points), (1,), generator=generator))
    seeds = points[first : first + 1]
    while len(seeds) < clusters:
        distances = torch.cdist(points, seeds).amin(1).square()  # (n,)
        if not bool((distances > 0).any()):
            break
        drawn = torch.multinomial(distances.cpu(), 1, generator=generator)
        seeds = torch.cat([seeds, points[drawn.to(points.device)]])
    return move_centres(points, seeds, 25)


def move_centres(points: Tensor, centres: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Move centres (clusters, size) to the means of the points nearest to them (Lloyd's algorithm).

    Returns the centres, in their dtype, and the number of points of each in the last round. A
    centre without points stays where it is.
    """
    sizes = centres.new_zeros(len(centres))
    for _ in range(iterations):
        # Summed in float64: rounded to float32, the sum does not depend on the order of its terms.
        sums = torch.zeros_like(centres, dtype=torch.float64)  # (clusters, size)
        sizes = torch.zeros(len(centres), dtype=torch.float64, device=centres.device)
        for part in points.split(_ROWS_AT_ONCE):
            rows = part.to(centres.dtype)  # (rows, size)
            distances = centres.square().sum(dim=1) - 2 * rows @ centres.T  # (rows, clusters)
            nearest = distances.argmin(dim=1)  # (rows,)
            sums.index_add_(0, nearest, rows.double())
            sizes.index_add_(0, nearest, torch.ones_like(nearest, dtype=torch.float64))
        means = (sums / sizes.clamp_min(1)[:, None]).to(centres.dtype)
        centres = torch.where(sizes[:, None] > 0, means, centres)
    return centres, sizes.long()
