"""The model of zero-shot forecasts: causal segment tokens with seasonal bases, and a frozen LLM."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from tsllm.adapters.layers import MonotoneQuantileHead

if TYPE_CHECKING:
    from tsllm.backbone import Backbone, PrivateBackbone

#: Steps of history that a forecast reads at most: those of the longest series in training.
CONTEXT = 1024
#: Steps whose spread is the unit of a token, and whose mean is one of its bases.
LOCAL_STEPS = 128
#: Seasons whose mean is the profile.
PROFILE_SEASONS = 4
#: Steps that give the level of the series without its season.
RECENT_STEPS = 4
#: Steps whose change is the slope of the drift.
SLOPE_STEPS = 32
#: Steps of a block that shares the weights of the bases.
BLOCK = 16
#: Quantile levels of the forecasts.
LEVELS = (0.025, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.975)
#: The simple forecasts that the model weighs, see `Tokens.bases`.
BASES = (
    "last value",
    "mean of 4 steps",
    "mean of 16 steps",
    "mean of 128 steps",
    "drift",
    "short seasonal naive",
    "short profile",
    "short profile at the level of 4 steps",
    "short seasonal naive with drift",
    "short profile at the level of 4 steps with drift",
    "long seasonal naive",
    "long profile",
    "long profile at the level of 4 steps",
)
#: The smallest unit of a token, in units of the series: constant series have no spread.
LEAST_SCALE = 1e-6
#: Zero is at most this number of units away: training saw none farther, for its series lie within
#: -1 and 1.
FARTHEST_ZERO = 1 / LEAST_SCALE
#: A series whose level is more than this number of deviations is measured in those, so that a small
#: change of a large level is not taken for none.
LARGE_LEVEL = 1e4
_N_SCALARS = 17


class Tokens(NamedTuple):
    """What the model computes for each token, from the steps up to the token's end."""

    features: Tensor
    """(batch, tokens, features), inputs of the first layer."""
    bases: Tensor
    """(batch, tokens, bases, horizon), simple forecasts, relative to ``anchor`` in ``scale``."""
    anchor: Tensor
    """(batch, tokens) float64, the last value, in the units of the series."""
    scale: Tensor
    """(batch, tokens) float64, the spread of the last steps, in the units of the series."""
    usual_change: Tensor
    """(batch, tokens), the mean change over a season and over 16 steps, in units of ``scale``."""
    seen: Tensor
    """(batch, tokens), the steps of the series up to the token's end."""

    def pick(self, rows: Tensor, columns: Tensor) -> Tokens:
        """Return the facts of some tokens, and the features of all."""
        return Tokens(self.features, *(values[rows, columns] for values in self[1:]))


class ZeroShotModel(nn.Module):
    """Forecast series that training has never seen, with all quantiles of 64 steps at once.

    As in AutoTimes (Liu et al., NeurIPS 2024, arXiv 2402.02370, section 3.1), a segment of a series
    is a token of the LLM. What differs: a token also holds simple forecasts of the next steps (the
    values one season ago, the mean profile of the last seasons) for a short and a long season; its
    numbers are relative to its own last value and the spread of the steps up to its own end, so
    each prefix of a series is an example, short ones too; and its output is the quantiles of the
    next ``horizon`` steps, as a weighted mean of the simple forecasts plus a correction.

    Parameters
    ----------
    backbone : Backbone, PrivateBackbone or None
        The LLM. None leaves it out: a forecast then depends on the last token only.
    token_length : int, default=16
        Steps of a segment.
    horizon : int, default=64
        Steps that one pass forecasts, a multiple of 16.
    hidden : int, default=512
        Width inside the two MLPs.
    width : int, default=384
        Token width when ``backbone`` is None; otherwise the backbone's width is used.

    See Also
    --------
    tsllm.ZeroShotForecaster : The estimator that uses this model.

    Examples
    --------
    >>> model = ZeroShotModel(None, width=8, hidden=8)
    >>> x, season = torch.randn(2, 48), torch.tensor([[7, 0], [24, 168]])
    >>> quantiles, tokens = model(x, torch.ones_like(x, dtype=torch.bool), season)
    >>> quantiles.shape
    torch.Size([2, 3, 64, 11])
    """

    def __init__(
        self,
        backbone: Backbone | PrivateBackbone | None,
        *,
        token_length: int = 16,
        horizon: int = 64,
        hidden: int = 512,
        width: int = 384,
    ) -> None:
        super().__init__()
        if horizon < BLOCK or horizon % BLOCK:
            raise ValueError(f"horizon must be a multiple of {BLOCK} steps, got {horizon}")
        self.backbone = backbone
        self.token_length = token_length
        self.horizon = horizon
        self.width = width if backbone is None else backbone.hidden_size
        n_features = 4 * token_length + 4 * horizon + _N_SCALARS
        blocks = horizon // BLOCK
        self.encoder = nn.Sequential(
            nn.Linear(n_features, hidden), nn.GELU(), nn.Linear(hidden, self.width)
        )
        self.norm = nn.LayerNorm(self.width)
        last = nn.Linear(hidden, horizon * len(LEVELS) + blocks * len(BASES))
        self.decoder = nn.Sequential(nn.Linear(self.width, hidden), nn.GELU(), last)
        self.quantile_head = MonotoneQuantileHead(LEVELS)
        with torch.no_grad():  # start at the mean of the simple forecasts, with some spread
            last.weight.mul_(0.1)
            raw = torch.full((len(LEVELS),), -2.0)
            raw[self.quantile_head.median] = 0.0
            last.bias.zero_()
            last.bias[: horizon * len(LEVELS)] = raw.repeat(horizon)

    def forward(
        self, x: Tensor, observed: Tensor, seasons: Tensor, *, after: Tensor | None = None
    ) -> tuple[Tensor, Tokens]:
        """Forecast the steps after each token, or after some of them.

        Parameters
        ----------
        x : Tensor
            Series within -1 and 1, ``(batch, steps)``; ``steps`` is a multiple of
            ``token_length``. A series begins in the first token; steps after its end do not matter.
        observed : Tensor
            Bool, the shape of ``x``: False before the first step and for missing values.
        seasons : Tensor
            int64, ``(batch, 2)``: the steps of the short and of the long season; 0 for none.
        after : Tensor or None, default=None
            int64, ``(batch, picked)``: the tokens after which to forecast. None: all.

        Returns
        -------
        quantiles : Tensor
            ``(batch, tokens, horizon, levels)``, relative to each token's ``anchor`` and in units
            of its ``scale``; with ``after`` of the picked tokens.
        tokens : Tokens
            The facts of these tokens, and the features of all.
        """
        tokens = self.describe(x, observed, seasons)
        embedded = self.encoder(tokens.features)  # (batch, tokens, width)
        states = embedded
        if self.backbone is not None:
            hidden = self.backbone.hidden(embedded)
            states = embedded + hidden.states.to(embedded.dtype)  # (batch, tokens, width)
        if after is not None:
            rows = torch.arange(len(after), device=after.device)[:, None]
            states = states[rows, after]  # (batch, picked, width)
            tokens = tokens.pick(rows, after)
        out = self.decoder(self.norm(states)).float()  # (batch, tokens, raw)
        raw, logits = out.split(
            [self.horizon * len(LEVELS), self.horizon // BLOCK * len(BASES)], dim=-1
        )
        by_block = logits.unflatten(-1, (len(BASES), -1))  # (batch, tokens, bases, blocks)
        weights = by_block.softmax(-2).repeat_interleave(
            BLOCK, dim=-1
        )  # (batch, tokens, bases, horizon)
        middle = (weights * tokens.bases).sum(-2)  # (batch, tokens, horizon)
        quantiles = self.quantile_head(raw) + middle[..., None]  # (batch, tokens, horizon, levels)
        return quantiles, tokens

    @torch.no_grad()
    def forecast(self, x: Tensor, observed: Tensor, seasons: Tensor, horizon: int) -> Tensor:
        """Forecast series from their ends, with the point forecast before the quantiles.

        Beyond the steps of one pass the median continues the series. The errors of the passes are
        taken as independent: the squares of the quantiles' distances from the median add up.

        Parameters
        ----------
        x : Tensor
            Series in any units, ``(batch, steps)`` float64, of which the last 1,024 are read.
        observed : Tensor
            Bool, the shape of ``x``; each series has an observed step.
        seasons : Tensor
            int64, ``(batch, 2)``, as in `forward`.
        horizon : int
            Steps to forecast.

        Returns
        -------
        Tensor
            ``(batch, horizon, 1 + levels)`` float64 in the units of ``x``.
        """
        unit = _unit_of(x[:, -CONTEXT:], observed[:, -CONTEXT:])  # (batch, 1)
        x = x / unit
        parts, spread = [], torch.zeros((), dtype=x.dtype, device=x.device)
        for _ in range(0, horizon, self.horizon):
            moved, real, last = self._from_first_token(x[:, -CONTEXT:], observed[:, -CONTEXT:])
            relative, tokens = self(moved, real, seasons, after=last[:, None])
            scale, anchor = tokens.scale[..., None], tokens.anchor[..., None]  # (batch, 1, 1)
            levels = relative[:, 0].double() * scale + anchor  # (batch, horizon, levels)
            median = levels[..., self.quantile_head.median, None]  # (batch, horizon, 1)
            distance = levels - median
            wide = distance.sign() * (distance.square() + spread).sqrt()
            spread = wide[:, -1:].square()  # (batch, 1, levels)
            parts.append(torch.cat([median, median + wide], dim=-1))
            x = torch.cat([x, median[..., 0]], dim=1)
            observed = torch.cat([observed, torch.ones_like(median[..., 0], dtype=torch.bool)], 1)
        return torch.cat(parts, dim=1)[:, :horizon] * unit[..., None]

    def _from_first_token(self, x: Tensor, observed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Move series so that each begins in the first token and ends at a token's end.

        Returns the series and what is observed, (batch, tokens * token_length), and the last token
        of each, (batch,). The forecast of a series then does not depend on the others.
        """
        size = self.token_length
        before = -x.shape[1] % size
        x = functional.pad(x, (before, 0))  # (batch, steps), a multiple of the token length
        observed = functional.pad(observed, (before, 0))
        skipped = observed.int().argmax(-1) // size * size  # (batch,)
        tokens = (x.shape[1] - skipped) // size  # (batch,)
        steps = torch.arange(int(tokens.max()) * size, device=x.device)
        source = skipped[:, None] + steps  # (batch, steps)
        inside = source < x.shape[1]
        source = source.clamp_max(x.shape[1] - 1)
        return x.gather(1, source), observed.gather(1, source) & inside, tokens - 1

    def describe(self, x: Tensor, observed: Tensor, seasons: Tensor) -> Tokens:
        """Compute the facts of each token from the steps up to its end.

        Parameters and shapes are those of `forward`.
        """
        size, device = self.token_length, x.device
        batch, steps = x.shape
        ends = torch.arange(size - 1, steps, size, device=device)  # (tokens,)
        begin = observed.int().argmax(-1)  # (batch,), first step of each series
        x = _fill(x.double(), observed, begin)  # (batch, steps)
        # Around the first value: squares of a level far from zero would hide a small spread.
        first = x.gather(1, begin[:, None])  # (batch, 1)
        x = x - first
        sums = _Sums(x, begin)
        seen = sums.count(ends)  # (batch, tokens)
        anchor = x[:, ends]  # (batch, tokens)
        local = sums.mean(ends, LOCAL_STEPS)  # (batch, tokens)
        variance = sums.square_mean(ends, LOCAL_STEPS) - local.square()
        scale = variance.clamp_min(0).sqrt().clamp_min(LEAST_SCALE)

        def relative(values: Tensor) -> Tensor:
            """Return values (batch, tokens, ...) relative to the anchor, in units of the scale."""
            shape = (*anchor.shape, *[1] * (values.ndim - 2))
            return (values - anchor.view(shape)) / scale.view(shape)

        ahead = torch.arange(1, self.horizon + 1, device=device)  # (horizon,)
        flat = torch.zeros(1, device=device, dtype=x.dtype).expand(batch, len(ends), self.horizon)
        window = (seen - 1).clamp(1, SLOPE_STEPS)  # (batch, tokens)
        past = x.gather(1, (ends - window).clamp_min(0))  # (batch, tokens)
        slope = (anchor - past) / scale / window  # (batch, tokens)
        bases = [
            flat,
            *(relative(sums.mean(ends, n))[..., None] + flat for n in (4, 16, LOCAL_STEPS)),
            slope[..., None] * ahead,
        ]
        own = torch.arange(-size + 1, 1, device=device) + ends[:, None]  # (tokens, size)
        segment = relative(x[:, own])  # (batch, tokens, size)
        valid = observed[:, own]  # (batch, tokens, size)
        numbers = [
            torch.log1p(seen.double()) / 7,
            torch.asinh((-(anchor + first) / scale).clamp(-FARTHEST_ZERO, FARTHEST_ZERO)),  # zero
            torch.asinh(relative(sums.mean(ends, steps))),
            torch.log(sums.distance(ends, 1) / scale + 1e-3),
            torch.asinh(slope * 16),
        ]
        curves, changes = [], []
        change = sums.distance(ends, 1)
        for column in range(2):
            steps_of_season = seasons[:, column].to(device)  # (batch,)
            season = _season(x, begin, ends, steps_of_season, ahead)
            once, twice = season.known[..., 0], season.known[..., 1]  # (batch, tokens)
            shift = torch.where(twice, season.level[..., 0] - season.level[..., 1], 0.0) / scale
            naive = torch.where(once[..., None], relative(season.naive), flat)
            profile = torch.where(once[..., None], relative(season.profile), flat)
            recent = season.recent / scale  # (batch, tokens)
            bases += [naive, profile, profile + recent[..., None]]
            if column == 0:
                cycles = torch.ceil(ahead / steps_of_season.clamp_min(1)[:, None, None])
                drift = shift[..., None] * cycles  # (batch, tokens, horizon)
                bases += [naive + drift, profile + recent[..., None] + drift]
            curves += [naive, profile]
            lagged = own - steps_of_season[:, None, None]  # (batch, tokens, size)
            both = (lagged >= begin[:, None, None]) & (steps_of_season > 0)[:, None, None]
            changes.append(torch.where(both, segment - relative(_at(x, lagged)), 0.0))
            distance = sums.distance(ends, steps_of_season)  # (batch, tokens)
            lagged_once = (steps_of_season[:, None] > 0) & (seen > steps_of_season[:, None])
            change = torch.where(lagged_once, distance, change) if column == 0 else change
            numbers += [
                torch.log2(steps_of_season.clamp_min(1).double())[:, None].expand_as(anchor) / 8,
                season.known.sum(-1) / PROFILE_SEASONS,
                torch.where(lagged_once, torch.log(distance / scale + 1e-3), 0.0),
                torch.asinh(shift),
                torch.asinh(recent),
                torch.asinh(torch.where(once, relative(season.level[..., 0]), 0.0)),
            ]
        features = torch.cat(
            [
                torch.asinh(torch.where(valid, segment, 0.0)),
                valid.to(x.dtype),
                *(torch.asinh(curve) for curve in (*changes, *curves)),
                torch.stack(numbers, dim=-1),
            ],
            dim=-1,
        )  # (batch, tokens, features)
        return Tokens(
            features.float(),
            torch.stack(bases, dim=-2).float(),
            anchor + first,
            scale,
            ((change + sums.distance(ends, 16)) / (2 * scale)).float(),
            seen,
        )


def _unit_of(x: Tensor, observed: Tensor) -> Tensor:
    """Return the unit of each series, (batch, 1): its largest value, as in training."""
    count = observed.sum(1, keepdim=True).clamp_min(1)
    largest = torch.where(observed, x.abs(), 0.0).amax(1, keepdim=True)
    mean = torch.where(observed, x, 0.0).sum(1, keepdim=True) / count
    spread = (torch.where(observed, x - mean, 0.0).square().sum(1, keepdim=True) / count).sqrt()
    unit = torch.where(spread > 0, torch.minimum(largest, LARGE_LEVEL * spread), largest)
    return torch.where(unit > 0, unit, 1.0)


class _Sums:
    """Running sums of series, which give the statistics of any last steps of a prefix.

    Parameters
    ----------
    x : Tensor (batch, steps)
    begin : Tensor (batch,)
        The first step of each series.
    """

    def __init__(self, x: Tensor, begin: Tensor) -> None:
        self.x = x
        self.begin = begin
        self.own = torch.arange(x.shape[1], device=x.device) >= begin[:, None]  # (batch, steps)
        self._sum = _running(torch.where(self.own, x, 0.0))  # (batch, steps + 1)
        self._squares = _running(torch.where(self.own, x.square(), 0.0))

    def count(self, ends: Tensor) -> Tensor:
        """Count the steps up to each end: (batch, tokens)."""
        return (ends - self.begin[:, None] + 1).clamp_min(1)

    def mean(self, ends: Tensor, window: int) -> Tensor:
        """Average the last ``window`` steps up to each end, or fewer at the begin."""
        return self._average(self._sum, ends, window)

    def square_mean(self, ends: Tensor, window: int) -> Tensor:
        """Average the squares of the last ``window`` steps up to each end."""
        return self._average(self._squares, ends, window)

    def distance(self, ends: Tensor, lag: int | Tensor) -> Tensor:
        """Average |x[t] - x[t - lag]| over the last steps up to each end; ``lag`` 0 gives 0."""
        steps = torch.arange(self.x.shape[1], device=self.x.device)
        lags = torch.as_tensor(lag, device=self.x.device).expand(len(self.x))[:, None]  # (batch, 1)
        before = self.x.gather(1, (steps - lags).clamp_min(0))  # (batch, steps)
        both = self.own & (steps - lags >= self.begin[:, None])
        total = _running(torch.where(both, (self.x - before).abs(), 0.0))
        number = _running(both.to(self.x.dtype))
        low = (ends + 1 - LOCAL_STEPS - lags).clamp_min(0)  # (batch, tokens)
        high = (ends + 1).expand_as(low)
        summed = total.gather(1, high) - total.gather(1, low)
        return summed / (number.gather(1, high) - number.gather(1, low)).clamp_min(1)

    def _average(self, running: Tensor, ends: Tensor, window: int) -> Tensor:
        low = torch.maximum(ends + 1 - window, self.begin[:, None]).clamp_min(0)  # (batch, tokens)
        high = (ends + 1).expand_as(low)
        return (running.gather(1, high) - running.gather(1, low)) / (high - low).clamp_min(1)


def _running(values: Tensor) -> Tensor:
    """Return sums of the first 0, 1, 2, ... values: (batch, steps + 1)."""
    return functional.pad(values.cumsum(-1), (1, 0))


def _fill(x: Tensor, observed: Tensor, begin: Tensor) -> Tensor:
    """Repeat the last observed value where one is missing; the first one before the series."""
    steps = torch.arange(x.shape[1], device=x.device)
    known = torch.where(observed, steps, -1).cummax(-1).values  # (batch, steps)
    return x.gather(1, torch.where(known < 0, begin[:, None], known))


class _Season(NamedTuple):
    """The simple forecasts by one season, in the units of the series."""

    naive: Tensor
    """(batch, tokens, horizon), the values one season ago."""
    profile: Tensor
    """(batch, tokens, horizon), the mean of the last seasons at the level of the last one."""
    recent: Tensor
    """(batch, tokens), the mean of the last 4 steps less their profile in earlier seasons."""
    level: Tensor
    """(batch, tokens, seasons), the mean of each of the last seasons, the latest first."""
    known: Tensor
    """(batch, tokens, seasons), whether the history holds that season."""


def _season(x: Tensor, begin: Tensor, ends: Tensor, steps: Tensor, ahead: Tensor) -> _Season:
    """Forecast by the last season and by the mean profile of the last seasons.

    Parameters
    ----------
    x : Tensor (batch, steps)
    begin : Tensor (batch,)
    ends : Tensor (tokens,)
    steps : Tensor (batch,)
        Steps of a season; 0 for none.
    ahead : Tensor (horizon,)
        1, 2, ...
    """
    device = x.device
    length = steps.clamp_min(1)[:, None, None]  # (batch, 1, 1)
    number = torch.arange(PROFILE_SEASONS, device=device)  # (seasons,)
    stop = ends[:, None] + 1 - number * length  # (batch, tokens, seasons), after each season's end
    known = (stop - length >= begin[:, None, None]) & (steps > 0)[:, None, None]
    running = _running(x)
    level = (_at(running, stop) - _at(running, stop - length)) / length
    back = ends[:, None] + ahead - length * torch.ceil(ahead / length).long()

    def mean_of_seasons(position: Tensor, first: int) -> Tensor:
        """Average the values at a position, and whole seasons before it, less their levels."""
        total = torch.zeros(position.shape, device=device, dtype=x.dtype)
        for one in range(first, PROFILE_SEASONS):
            values = _at(x, position - one * length) - level[..., one, None]
            total += torch.where(known[..., one, None], values, 0.0)
        counted = known[..., first:].sum(-1, keepdim=True).clamp_min(1)
        return total / counted

    profile = level[..., :1] + mean_of_seasons(back, 0)
    latest = ends[:, None] - torch.arange(RECENT_STEPS, device=device) + 0 * length
    usual = level[..., :1] + mean_of_seasons(latest, 1)  # (batch, tokens, recent)
    recent = torch.where(known[..., 1], (_at(x, latest) - usual).mean(-1), 0.0)
    return _Season(_at(x, back), profile, recent, level, known)


def _at(values: Tensor, positions: Tensor) -> Tensor:
    """Read values (batch, steps) at positions (batch, ...); before the first one, the first."""
    flat = positions.clamp_min(0).flatten(1)
    return values.gather(1, flat).view(positions.shape)
