"""TimeCMA: the variables of a series, aligned with prompt embeddings by attention."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tsllm.adapters.layers import MonotoneQuantileHead, direct_forecast, instance_normalise

CROSS_NORMS = ("variables", "features")
#: Layers that the authors' code keeps as templates and never runs.
_UNUSED_OFFICIAL_KEYS = re.compile(r"(ts_encoder|prompt_encoder|decoder)_layer\..+")
_OFFICIAL_SCALE = "cross.layers.0.self_attn.sdp_attn.scale"
_LAYER = re.compile(r"(ts_encoder|prompt_encoder|decoder)\.layers\.(\d+)\.")


class CrossModalityAlignment(nn.Module):
    """Attention from the features of a series to those of its prompts (TimeCMA, section 3.4).

    Liu et al., AAAI 2025, arXiv 2406.01638. A feature is a vector over the variables: queries are
    the features of the series, keys and values those of the prompts, and all three are
    ``n_variables`` wide. The module names are those of the authors' code, which stacks layers and
    uses one.

    Parameters
    ----------
    n_variables : int
        Width of queries, keys and values.
    feedforward : int, default=32
        Width inside the feed-forward block.
    dropout : float, default=0.1
        Dropout of the attention weights, after the attention, and in and after the feed-forward
        block.
    feature_widths : tuple of two int or None, default=None
        None: the published layer, whose layer norms normalise each feature over the variables, with
        one norm for queries, keys and values. This removes all information of a single variable,
        and leaves of two only which one is larger. With the numbers of features of series and
        prompts, the layer norms normalise each variable over its features, the prompts by a norm of
        their own; this works for any number of variables.

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
        """Align (batch, channel, variables) with prompts (batch, width, variables)."""
        out: Tensor = self.layers[0](series, prompts)
        return out


class _AlignmentLayer(nn.Module):
    """One pre-norm layer, whose residuals are added to the normalised tensor.

    The authors' code also adds the attention scores of the layer before, which one layer has not.
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
        # Written out: dropout on the weights and the sums are then the same on every device.
        scores = self.W_Q(query) @ self.W_K(source).transpose(1, 2) * self.scale
        weights = self.dropout(torch.softmax(scores, dim=-1))  # (batch, channel, width)
        out: Tensor = self.to_out(weights @ self.W_V(source))  # (batch, channel, variables)
        return out


class _FeatureNorm(nn.LayerNorm):
    """Layer norm of each variable over its features: (batch, features, variables) to the same."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class TimeCMAModel(nn.Module):
    """TimeCMA (Liu et al., AAAI 2025, arXiv 2406.01638, section 3).

    Each variable is one token. The series branch computes it from the normalised window, the prompt
    branch from the LLM's embedding of a text about that window. The cross-modality alignment
    retrieves the parts of the second that match the first, and a decoder computes the forecast from
    them. The LLM is not part of the model: its embeddings do not depend on trained parameters.

    Parameters
    ----------
    context_length : int
        Steps of the context.
    horizon : int
        Steps to forecast.
    n_variables : int
        Variables of a series, fixed.
    width : int or None
        Width of the prompt embeddings. None: a model without the prompt branch, whose alignment
        reads the series branch instead.
    channel : int, default=64
        Width of a variable's token, a multiple of ``heads``.
    heads : int, default=8
        Attention heads of the encoders and the decoder.
    encoder_layers : int, default=1
        Layers of each encoder.
    decoder_layers : int, default=2
        Layers of the decoder.
    feedforward : int, default=2048
        Width inside the feed-forward blocks of the encoders and the decoder.
    cross_feedforward : int, default=32
        Width inside the feed-forward block of the alignment.
    dropout : float, default=0.1
        Dropout of all parts.
    cross_norm : {"variables", "features"}, default="variables"
        The axis that the alignment normalises over. The published "variables" needs at least three
        variables; see `CrossModalityAlignment`.
    quantiles : tuple of float, default=()
        Levels to forecast; empty for a point forecast.

    Raises
    ------
    ValueError
        When ``channel`` or ``width`` is not a multiple of ``heads``, ``cross_norm`` is unknown, or
        the levels are not strictly increasing in (0, 1).

    See Also
    --------
    tsllm.TimeCMAForecaster : The estimator that trains this model.

    Examples
    --------
    >>> import torch
    >>> model = TimeCMAModel(96, 24, 7, 384)
    >>> model(torch.randn(2, 96, 7), torch.randn(2, 384, 7)).shape
    torch.Size([2, 24, 7])
    """

    def __init__(
        self,
        context_length: int,
        horizon: int,
        n_variables: int,
        width: int | None,
        *,
        channel: int = 64,
        heads: int = 8,
        encoder_layers: int = 1,
        decoder_layers: int = 2,
        feedforward: int = 2048,
        cross_feedforward: int = 32,
        dropout: float = 0.1,
        cross_norm: str = "variables",
        quantiles: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        if cross_norm not in CROSS_NORMS:
            raise ValueError(f"cross_norm must be one of {list(CROSS_NORMS)}, got {cross_norm!r}")
        for name, size in (("channel", channel), ("width", width)):
            if size is not None and size % heads:
                raise ValueError(f"{name}={size} must be a multiple of heads={heads}")
        self.context_length = context_length
        self.horizon = horizon
        self.n_variables = n_variables
        self.width = width
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None

        def encoder(size: int) -> nn.TransformerEncoder:
            layer = nn.TransformerEncoderLayer(
                size, heads, feedforward, dropout, batch_first=True, norm_first=True
            )
            return nn.TransformerEncoder(layer, encoder_layers, enable_nested_tensor=False)

        self.length_to_feature = nn.Linear(context_length, channel)
        self.ts_encoder = encoder(channel)
        self.prompt_encoder = None if width is None else encoder(width)
        self.cross = CrossModalityAlignment(
            n_variables,
            feedforward=cross_feedforward,
            dropout=dropout,
            feature_widths=None if cross_norm == "variables" else (channel, width or channel),
        )
        layer = nn.TransformerDecoderLayer(
            channel, heads, feedforward, dropout, batch_first=True, norm_first=True
        )
        self.decoder = nn.TransformerDecoder(layer, decoder_layers)
        self.c_to_length = nn.Linear(channel, horizon * max(1, len(quantiles)))

    @classmethod
    def from_official(cls, state_dict: Mapping[str, Tensor], n_heads: int = 8) -> "TimeCMAModel":
        """Load a state dict of the authors' code; the outputs equal theirs to 1e-5.

        All sizes but the number of heads are read from the shapes. The authors' ``*_layer.*``
        tensors are templates that are never run, and are ignored.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            A leading ``module.`` (distributed training) is removed.
        n_heads : int, default=8
            Attention heads, which no shape shows; the authors' default is 8.

        Returns
        -------
        TimeCMAModel
            In training mode, like any new module, with the default dropout.

        Raises
        ------
        ValueError
            For keys that are unknown, missing or of a shape that does not fit the others.
        """
        named = {
            key.removeprefix("module."): tensor
            for key, tensor in state_dict.items()
            if not _UNUSED_OFFICIAL_KEYS.fullmatch(key.removeprefix("module."))
        }
        scale = named.pop(_OFFICIAL_SCALE, None)
        sizes = {
            "length_to_feature.weight": "channel and context_length",
            "c_to_length.weight": "horizon",
            "cross.layers.0.ff.0.weight": "cross_feedforward and n_variables",
            "prompt_encoder.layers.0.linear1.weight": "feedforward and width",
        }
        absent = [key for key in sizes if key not in named]
        if absent:
            raise ValueError(
                f"state_dict lacks {absent[0]!r}, which tells {sizes[absent[0]]}; its keys: "
                f"{sorted(named)}"
            )
        layers = dict.fromkeys(("ts_encoder", "prompt_encoder", "decoder"), 0)
        for match in map(_LAYER.match, named):
            if match:
                layers[match[1]] = max(layers[match[1]], int(match[2]) + 1)
        channel, context_length = named["length_to_feature.weight"].shape
        cross_feedforward, n_variables = named["cross.layers.0.ff.0.weight"].shape
        feedforward, width = named["prompt_encoder.layers.0.linear1.weight"].shape
        model = cls(
            context_length,
            named["c_to_length.weight"].shape[0],
            n_variables,
            width,
            channel=channel,
            heads=n_heads,
            encoder_layers=layers["ts_encoder"],
            decoder_layers=layers["decoder"],
            feedforward=feedforward,
            cross_feedforward=cross_feedforward,
        )
        expected = {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()}
        given = {key: tuple(tensor.shape) for key, tensor in named.items()}
        wrong = [key for key in sorted(given | expected) if given.get(key) != expected.get(key)]
        if wrong:
            details = "; ".join(
                f"{key} is {given.get(key, 'missing')} and should be "
                f"{expected.get(key, 'absent: TimeCMA does not know it')}"
                for key in wrong
            )
            raise ValueError(f"state_dict's tensors do not fit together: {details}")
        if scale is None or abs(float(scale) - n_variables**-0.5) > 1e-6:
            raise ValueError(
                f"{_OFFICIAL_SCALE} is {'missing' if scale is None else float(scale)}; the "
                f"authors' code never trains it from n_variables ** -0.5 = {n_variables**-0.5:.6f}"
            )
        model.load_state_dict(named)
        return model

    def forward(
        self, x: Tensor, prompt_embeddings: Tensor | None = None, *, mask: Tensor | None = None
    ) -> Tensor:
        """Forecast the steps after a window.

        Parameters
        ----------
        x : Tensor
            ``(batch, context, variables)`` in raw units.
        prompt_embeddings : Tensor or None, default=None
            ``(batch, width, variables)``: the LLM's embedding of the text about each variable's
            window. None exactly where the model has no width.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. Unobserved steps count as the window's
            mean.

        Returns
        -------
        Tensor
            ``(batch, horizon, variables)``, or ``(batch, horizon, variables, levels)``, in raw
            units.
        """
        self._check(x, prompt_embeddings)
        normalised, mean, std = instance_normalise(x, mask)  # (batch, context, variables)
        tokens = self.length_to_feature(normalised.transpose(1, 2))  # (batch, variables, channel)
        series = self.ts_encoder(tokens).transpose(1, 2)  # (batch, channel, variables)
        source = series
        if self.prompt_encoder is not None and prompt_embeddings is not None:
            prompts = prompt_embeddings.to(x.dtype).transpose(1, 2)  # (batch, variables, width)
            source = self.prompt_encoder(prompts).transpose(1, 2)  # (batch, width, variables)
        aligned = self.cross(series, source).transpose(1, 2)  # (batch, variables, channel)
        decoded = self.decoder(aligned, aligned)  # (batch, variables, channel)
        out = self.c_to_length(decoded)  # (batch, variables, horizon [* levels])
        return direct_forecast(out, mean, std, self.quantile_head)

    def _check(self, x: Tensor, prompt_embeddings: Tensor | None) -> None:
        """Check the shapes of the inputs of `forward`."""
        if x.ndim != 3 or x.shape[1:] != (self.context_length, self.n_variables):
            raise ValueError(
                f"x must be (batch, {self.context_length}, {self.n_variables}), got "
                f"{tuple(x.shape)}; pad a shorter window on the left and mask the padding"
            )
        expected = None if self.width is None else (len(x), self.width, self.n_variables)
        given = None if prompt_embeddings is None else tuple(prompt_embeddings.shape)
        if given != expected:
            raise ValueError(
                f"prompt_embeddings must be {expected or 'left out of a model without width'}, "
                f"got {given}"
            )
