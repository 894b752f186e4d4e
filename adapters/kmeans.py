"""k-means, from a seed of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: Lloyd's rounds; the centroids of a few thousand points settle within a handful.
ROUNDS = 25


def kmeans(points: Tensor, clusters: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cluster points (n, size) around centroids, (clusters, size), with their counts (clusters,).

    Lloyd's rounds from seeds drawn by squared distance (k-means++). Fewer distinct points than
    clusters give fewer centroids.

    Examples
    --------
    >>> points = torch.tensor([[0.0], [2.0], [10.0], [12.0]])
    >>> centroids, counts = kmeans(points, 2, torch.Generator().manual_seed(0))
    >>> sorted(centroids.flatten().tolist()), counts.tolist()
    ([1.0, 11.0], [2, 2])
    """
    centroids = points.mean(0, keepdim=True)
    if clusters > 1:
        first = torch.randint(len(points), (1,), generator=generator).to(points.device)
        centroids = points[first]
        while len(centroids) < clusters:
            distance = torch.cdist(points, centroids).amin(1).square()  # (n,)
            if not bool((distance > 0).any()):
                break
            drawn = torch.multinomial(distance.cpu(), 1, generator=generator)
            centroids = torch.cat([centroids, points[drawn.to(points.device)]])
    for _ in range(ROUNDS):
        nearest = torch.cdist(points, centroids).argmin(1)  # (n,)
        members = nn.functional.one_hot(nearest, len(centroids)).to(points.dtype)
        counts = members.sum(0)  # (clusters,)
        means = members.T @ points / counts.clamp_min(1)[:, None]
        centroids = torch.where((counts > 0)[:, None], means, centroids)
    return centroids, counts.long()
