"""TimeCMA's cross-modality alignment: a series retrieves from texts what matches it."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class CrossModalityAlignment(nn.Module):
    """Retrieve from the prompts' features those that match the series' (TimeCMA, arXiv 2406.01638).

    Section 3.4 of the paper. A feature is described by what it is over the variables: queries are
    the series' features, keys and values the prompts', and the width of all three is the number of
    variables. The module names are those of the authors' code, which stacks layers; it uses one.

    Parameters
    ----------
    n_variables : int
        Width of queries, keys and values.
    feedforward : int
        Width inside the feed-forward block.
    dropout : float
        On the attention weights, after the attention, and inside and after the feed-forward block.
    feature_widths : tuple of two int, optional
        None is the published layer, whose layer norms normalise every feature over the variables,
        one for queries, keys and values. That leaves nothing of one variable, and of two only which
        one is larger. Given the numbers of features of series and prompts, the layer norms
        normalise every variable over its features instead, those of the prompts by one of their
        own, which serves any number of variables.

    Examples
    --------
    >>> cross = CrossModalityAlignment(7)
    >>> cross(torch.randn(2, 64, 7), torch.randn(2, 384, 7)).shape
    torch.Size([2, 64, 7])
    """

    def __init__(
        self,
        n_variables: int,
        *,
        feedforward: int = 32,
        dropout: float = 0.1,
        feature_widths: tuple[int, int] | None = None,
    ) -> None:
        super().__init__()
        layer = _AlignmentLayer(n_variables, feedforward, dropout, feature_widths)
        self.layers = nn.ModuleList([layer])

    def forward(self, series: Tensor, prompts: Tensor) -> Tensor:
        """Align series with prompts.

        Parameters
        ----------
        series : Tensor
            ``(batch, channel, variables)``, the queries.
        prompts : Tensor
            ``(batch, width, variables)``, the keys and values.

        Returns
        -------
        Tensor
            ``(batch, channel, variables)``.
        """
        out: Tensor = self.layers[0](series, prompts)
        return out


class _AlignmentLayer(nn.Module):
    """One pre-norm layer, in which the normalised tensor is the one that continues.

    The residual attention scores of the authors' code would be added here from the layer before;
    there is none.
    """

    def __init__(
        self,
        n_variables: int,
        feedforward: int,
        dropout: float,
        feature_widths: tuple[int, int] | None,
    ) -> None:
        super().__init__()
        self.self_attn = _Attention(n_variables, dropout)
        self.dropout_attn = nn.Dropout(dropout)
        self.ff = nn.Sequential(
            nn.Linear(n_variables, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, n_variables),
        )
        self.dropout_ffn = nn.Dropout(dropout)
        self.norm_source: _FeatureNorm | None = None
        if feature_widths is None:
            self.norm_attn: nn.Module = nn.LayerNorm(n_variables)
            self.norm_ffn: nn.Module = nn.LayerNorm(n_variables)
        else:
            channel, width = feature_widths
            self.norm_attn, self.norm_ffn = _FeatureNorm(channel), _FeatureNorm(channel)
            self.norm_source = _FeatureNorm(width)

    def forward(self, series: Tensor, prompts: Tensor) -> Tensor:
        query = self.norm_attn(series)  # (batch, channel, variables)
        norm_source = self.norm_attn if self.norm_source is None else self.norm_source
        source = norm_source(prompts)  # (batch, width, variables), keys and values
        query = query + self.dropout_attn(self.self_attn(query, source))
        query = self.norm_ffn(query)
        out: Tensor = query + self.dropout_ffn(self.ff(query))
        return out


class _Attention(nn.Module):
    """Scaled dot-product attention with one head."""

    def __init__(self, n_variables: int, dropout: float) -> None:
        super().__init__()
        self.W_Q = nn.Linear(n_variables, n_variables)
        self.W_K = nn.Linear(n_variables, n_variables)
        self.W_V = nn.Linear(n_variables, n_variables)
        self.to_out = nn.Sequential(nn.Linear(n_variables, n_variables), nn.Dropout(dropout))
        self.dropout = nn.Dropout(dropout)
        self.scale = n_variables**-0.5

    def forward(self, query: Tensor, source: Tensor) -> Tensor:
        # Written out, so that dropout on the weights and the sums are the same on every device.
        scores = self.W_Q(query) @ self.W_K(source).transpose(1, 2) * self.scale
        weights = self.dropout(torch.softmax(scores, dim=-1))  # (batch, channel, width)
        out: Tensor = self.to_out(weights @ self.W_V(source))  # (batch, channel, variables)
        return out


class _FeatureNorm(nn.LayerNorm):
    """Normalise every variable over its features: (batch, features, variables) to the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
