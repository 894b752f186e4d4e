"""TimeCMA's cross-modality alignment: a series retrieves from texts what matches it."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

NORMS = ("variables", "features")


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
    norm : {"variables", "features"}
        What the layer norms normalise over. "variables" is the published layer: every feature over
        the variables. That leaves nothing of one variable, and of two only which one is larger.
        "features" normalises every variable over its features instead, without weights of its own
        (series and prompts have unlike many), and serves any number of variables.

    Raises
    ------
    ValueError
        For an unknown ``norm``.

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
        norm: str = "variables",
    ) -> None:
        super().__init__()
        if norm not in NORMS:
            raise ValueError(f"norm must be one of {list(NORMS)}, got {norm!r}")
        layer = _AlignmentLayer(n_variables, feedforward, dropout, norm)
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

    def __init__(self, n_variables: int, feedforward: int, dropout: float, norm: str) -> None:
        super().__init__()
        over_variables = norm == "variables"
        self.self_attn = _Attention(n_variables, dropout)
        self.dropout_attn = nn.Dropout(dropout)
        self.norm_attn = nn.LayerNorm(n_variables) if over_variables else _FeatureNorm()
        self.ff = nn.Sequential(
            nn.Linear(n_variables, feedforward),
            nn.GELU(),
            nn.Dropout(dropout),
            nn.Linear(feedforward, n_variables),
        )
        self.dropout_ffn = nn.Dropout(dropout)
        self.norm_ffn = nn.LayerNorm(n_variables) if over_variables else _FeatureNorm()

    def forward(self, series: Tensor, prompts: Tensor) -> Tensor:
        query = self.norm_attn(series)  # (batch, channel, variables)
        source = self.norm_attn(prompts)  # (batch, width, variables), keys and values
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


class _FeatureNorm(nn.Module):
    """Normalise every variable over its features: (batch, features, variables) to the same."""

    def forward(self, x: Tensor) -> Tensor:
        by_variable = x.transpose(1, 2)  # (batch, variables, features)
        return functional.layer_norm(by_variable, by_variable.shape[-1:]).transpose(1, 2)
