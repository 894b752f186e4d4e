"""S²IP-LLM: a decomposed series, aligned with anchors from the LLM's word embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import (
    MonotoneQuantileHead,
    check_mask,
    count_patches,
    direct_forecast,
    instance_normalise,
)
from tsllm.adapters.s2ip.anchors import Retrieved, build_anchors, retrieve
from tsllm.adapters.s2ip.decomposition import decompose

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone

#: Trend, seasonal component and residual.
COMPONENTS = 3
#: The tensors that are trained outside the LLM: names in the authors' code and here.
_OFFICIAL_NAMES = {
    "in_layer.weight": "in_layer.weight",
    "in_layer.bias": "in_layer.bias",
    "out_layer.weight": "out_layer.weight",
    "out_layer.bias": "out_layer.bias",
    "prompt_pool.text_prototype_linear.weight": "anchors.linear.weight",
    "prompt_pool.text_prototype_linear.bias": "anchors.linear.bias",
}


class Alignment(NamedTuple):
    """Windows in the space of the word embeddings; each channel is a sample, channels fastest."""

    tokens: Tensor
    """(samples, patches, width): the patch tokens."""
    query: Tensor
    """(samples, width): their mean."""
    found: Retrieved
    """The anchors that are closest to the query."""
    pool: Tensor
    """(pool_size, width): all anchors."""


class S2IPModel(nn.Module):
    """S²IP-LLM (Pan et al., ICML 2024, arXiv 2403.05798, section 3).

    Each channel is a sample of its own. Its window is normalised by its own statistics and split
    into trend, seasonal component and residual; patches of the three side by side become the tokens
    of the LLM. The anchors that are closest to the mean token stand before them as a prompt, and a
    linear layer maps all states of the LLM to the forecast.

    Statistics and seasonal means are computed from observed steps; in the trend an unobserved step
    has the value of its nearest observed neighbour. The LLM attends to all tokens, because its
    states are read at fixed places.

    Parameters
    ----------
    backbone : Backbone, PrivateBackbone or None
        The LLM. The published method trains its layer norms and positions:
        ``tuned(backbone, train=["layer_norms", "positions"])``. None leaves the LLM out and
        nothing else: free anchors with random rows replace those from word embeddings, and the
        output layer reads the prompted tokens themselves.
    context_length : int
        Steps of the context.
    horizon : int
        Steps to forecast.
    trend_length, seasonal_length : int, default=24
        Steps of the moving average and of a season; see `decompose`.
    patch_length : int, default=16
        Steps of a patch.
    stride : int, default=8
        Steps between the starts of two patches.
    anchors : {"prototypes", "free", "clusters"}, default="prototypes"
        "prototypes": trained mixtures of the whole vocabulary, as published. "free": a trained
        matrix that starts from such mixtures. "clusters": frozen k-means centres of the word
        embeddings. Without a backbone always "free".
    pool_size : int, default=1000
        Number of anchors.
    prompt_length : int, default=4
        Number of anchors in the prompt of a sample.
    dropout : float, default=0.0
        Dropout of the prompted tokens.
    quantiles : tuple of float, default=()
        Levels to forecast, strictly increasing; empty for a point forecast.
    width : int, default=384
        Token width when ``backbone`` is None; otherwise the backbone's width is used.

    See Also
    --------
    tsllm.S2IPForecaster : The estimator that trains this model.

    Examples
    --------
    >>> model = S2IPModel(
    ...     None, 48, 12, trend_length=12, seasonal_length=12, pool_size=20, width=16
    ... )
    >>> forecast, similarity = model(torch.randn(2, 48, 3))
    >>> model.n_patches, forecast.shape, similarity.shape
    (6, torch.Size([2, 12, 3]), torch.Size([]))
    """

    def __init__(
        self,
        backbone: Backbone | PrivateBackbone | None,
        context_length: int,
        horizon: int,
        *,
        trend_length: int = 24,
        seasonal_length: int = 24,
        patch_length: int = 16,
        stride: int = 8,
        anchors: str = "prototypes",
        pool_size: int = 1000,
        prompt_length: int = 4,
        dropout: float = 0.0,
        quantiles: tuple[float, ...] = (),
        width: int = 384,
    ) -> None:
        super().__init__()
        self.n_patches = count_patches(context_length, patch_length, stride)
        if not 1 <= trend_length <= context_length:
            raise ValueError(
                f"trend_length={trend_length} must lie between 1 and "
                f"context_length={context_length}"
            )
        if seasonal_length < 1:
            raise ValueError(f"seasonal_length must be at least 1 step, got {seasonal_length}")
        if not 1 <= prompt_length <= pool_size:
            raise ValueError(
                f"prompt_length={prompt_length} must lie between 1 and pool_size={pool_size}"
            )
        self.backbone = backbone
        self.context_length = context_length
        self.trend_length = trend_length
        self.seasonal_length = seasonal_length
        self.patch_length = patch_length
        self.stride = stride
        self.prompt_length = prompt_length
        self.width = width if backbone is None else backbone.hidden_size
        self.quantile_head = MonotoneQuantileHead(quantiles) if quantiles else None
        self.in_layer = nn.Linear(COMPONENTS * patch_length, self.width)
        # A third of the flattened states, which are padded to a multiple of three.
        third = -(-(prompt_length + self.n_patches) * self.width // COMPONENTS)
        self.out_layer = nn.Linear(third, horizon * max(1, len(quantiles)))
        self.anchors = build_anchors(
            "free" if backbone is None else anchors, pool_size, self.width, self._words()
        )
        self.dropout = nn.Dropout(dropout)

    @classmethod
    def from_official(
        cls,
        state_dict: Mapping[str, Tensor],
        backbone: Backbone | PrivateBackbone,
        *,
        context_length: int,
        trend_length: int,
        seasonal_length: int,
        patch_length: int,
        stride: int,
        prompt_length: int,
    ) -> S2IPModel:
        """Load a state dict of the authors' code; the outputs equal theirs to 1e-5.

        Horizon and pool size are read from the shapes. Of the LLM's tensors, the layer norms and
        positions, which the authors train, are loaded; the rest must be ``backbone``'s.

        Parameters
        ----------
        state_dict : mapping of str to Tensor
            ``in_layer.*``, ``out_layer.*``, ``prompt_pool.*`` and ``gpt2.*``; a leading ``module.``
            (distributed training) is removed.
        backbone : Backbone or PrivateBackbone
            The GPT-2 that was trained, with as many layers. A private one must train its layer
            norms and positions.
        context_length, trend_length, seasonal_length, patch_length, stride, prompt_length : int
            The settings that no shape shows.

        Returns
        -------
        S2IPModel
            In training mode, like any new module.

        Raises
        ------
        ValueError
            For keys that are unknown, missing or of the wrong shape, and when the word embeddings
            are not the backbone's.
        """
        named = {key.removeprefix("module."): tensor for key, tensor in state_dict.items()}
        missing = sorted(_OFFICIAL_NAMES.keys() - named.keys())
        if missing:
            raise ValueError(
                f"state_dict lacks {missing}; load a checkpoint of S²IP-LLM with text prototypes"
            )
        from tsllm.backbone import PrivateBackbone  # transformers, which the model does not need

        private = (
            backbone
            if isinstance(backbone, PrivateBackbone)
            else PrivateBackbone(backbone, train=["layer_norms", "positions"])
        )
        owned = {
            "gpt2." + name.replace("/", "."): f"backbone.{name}"
            for name, _ in private.named_parameters()
        }
        names = _OFFICIAL_NAMES | owned
        llm = {key for key in named if key.startswith("gpt2.")}
        unknown = named.keys() - names.keys() - llm - {"prompt_pool.wte"}
        # All tensors that the authors train, by their own rule, must have been matched.
        unknown |= {key for key in llm - names.keys() if ".ln_" in key or "wpe" in key}
        if unknown:
            raise ValueError(
                f"state_dict holds trained tensors that have no place here: {sorted(unknown)}; "
                f"give the GPT-2 of that depth, not {private.n_layers} layers of "
                f"{private.model_type}, and as a plain Backbone"
            )
        words = private.word_embeddings
        for key in ("prompt_pool.wte", "gpt2.wte.weight"):
            if key in named and not _same_words(named[key], words):
                raise ValueError(
                    f"the checkpoint's word embeddings {key} are not the backbone's, of shape "
                    f"{tuple(words.shape)}; load the LLM that the checkpoint was trained with"
                )
        model = cls(
            private,
            context_length,
            named["out_layer.weight"].shape[0],
            trend_length=trend_length,
            seasonal_length=seasonal_length,
            patch_length=patch_length,
            stride=stride,
            anchors="prototypes",
            pool_size=named["prompt_pool.text_prototype_linear.bias"].shape[0],
            prompt_length=prompt_length,
        )
        state = model.state_dict()
        wrong = [
            f"{key} {tuple(named[key].shape) if key in named else 'missing'}, "
            f"not {tuple(state[ours].shape)}"
            for key, ours in names.items()
            if key not in named or named[key].shape != state[ours].shape
        ]
        if wrong:
            raise ValueError(f"state_dict's tensors do not fit the settings: {'; '.join(wrong)}")
        model.load_state_dict({ours: named[key] for key, ours in names.items()})
        return model

    def forward(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Forecast the steps after a window.

        Parameters
        ----------
        x : Tensor
            ``(batch, context_length, channels)`` in raw units.
        mask : Tensor or None, default=None
            Bool, the shape of ``x``, True where observed. None: everything is observed.

        Returns
        -------
        forecast : Tensor
            ``(batch, horizon, channels)``, or ``(batch, horizon, channels, levels)``, in raw units.
        similarity : Tensor
            Scalar: the cosine similarities of query and chosen anchors (paper, section 3.2), summed
            over the prompt and averaged over the samples.
        """
        mask = self._checked_mask(x, mask)
        normalised, mean, std = instance_normalise(x, mask)  # (batch, context, channels)
        aligned = self._align(normalised, mask)  # samples = batch * channels
        states = self.dropout(torch.cat([aligned.found.anchors, aligned.tokens], dim=1))
        if self.backbone is not None:
            states = self.backbone.hidden(states).states  # (samples, prompt + patches, width)
        # The published code applies one layer to each third of the flattened states and sums the
        # results. The layer is linear: summing the thirds first needs a third of the operations.
        flat = states.flatten(1)  # (samples, (prompt + patches) * width)
        flat = functional.pad(flat, (0, -flat.shape[1] % COMPONENTS))
        folded = flat.unflatten(1, (COMPONENTS, -1)).sum(dim=1)  # (samples, third)
        out = functional.linear(folded, self.out_layer.weight, COMPONENTS * self.out_layer.bias)
        out = out.unflatten(0, (len(x), -1))  # (batch, channels, horizon [* levels])
        forecast = direct_forecast(out, mean, std, self.quantile_head)
        return forecast, aligned.found.similarities.sum() / len(states)

    def align(self, x: Tensor, mask: Tensor | None = None) -> Alignment:
        """Compute the tokens of windows and the anchors that are closest to them; as `forward`."""
        mask = self._checked_mask(x, mask)
        return self._align(instance_normalise(x, mask).values, mask)

    def to_patches(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Decompose and cut normalised windows (batch, context, channels).

        Returns (batch * channels, patches, 3 * patch_length): trend, seasonal component and
        residual of the same steps side by side.
        """
        series = x.transpose(1, 2).flatten(0, 1)  # (samples, context)
        observed = None if mask is None else mask.transpose(1, 2).flatten(0, 1)
        parts = decompose(series, self.trend_length, self.seasonal_length, observed)
        parts = functional.pad(parts, (0, self.stride), mode="replicate")  # (samples, 3, time)
        patches = parts.unfold(-1, self.patch_length, self.stride)  # (samples, 3, patches, length)
        return patches.transpose(1, 2).flatten(2)

    def _align(self, normalised: Tensor, mask: Tensor | None) -> Alignment:
        """Embed the patches, and find the anchors that are closest to the mean token."""
        tokens = self.in_layer(self.to_patches(normalised, mask))  # (samples, patches, width)
        query = tokens.mean(dim=1)  # (samples, width)
        pool = self.anchors(self._words())  # (pool_size, width)
        return Alignment(tokens, query, retrieve(query, pool, self.prompt_length), pool)

    def _words(self) -> Tensor | None:
        """Return the frozen word embeddings, (vocab, width)."""
        return None if self.backbone is None else self.backbone.word_embeddings

    def _checked_mask(self, x: Tensor, mask: Tensor | None) -> Tensor | None:
        """Check a context and its mask, and return None for a mask that hides nothing."""
        if x.ndim != 3 or x.shape[1] != self.context_length:
            raise ValueError(
                f"x must be (batch, {self.context_length}, channels), got shape {tuple(x.shape)}; "
                "pad a shorter context on the left and mask the padding"
            )
        return check_mask(x, mask)


def _same_words(given: Tensor, words: Tensor) -> bool:
    """Return whether word embeddings are equal, up to the backbone's precision."""
    if given.shape != words.shape:
        return False
    tolerance = 1e-6 if words.dtype == torch.float32 else 1e-2
    return torch.allclose(given.to(words.device).float(), words.float(), rtol=tolerance, atol=1e-6)
