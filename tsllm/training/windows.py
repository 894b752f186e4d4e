"""Training windows: views of (context + target) steps of series."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tsllm.errors import DataError, NotEnoughDataError
from tsllm.training.checkpoints import digest


@dataclass
class WindowBatch:
    """A batch of windows for a model.

    Attributes
    ----------
    values : Tensor, (batch, length, variables), float32
        Context, then target; ``length = context_length + target_length``. 0 where not observed.
    mask : Tensor, (batch, length, variables), bool
        True where the value was observed: neither missing (NaN) nor outside the series.
    series : Tensor, (batch,), int64
        Index of each window's series in the list of :class:`Windows`.
    start : Tensor, (batch,), int64
        Position of each window's first step in its series; negative before the series begins.
    """

    values: Tensor
    mask: Tensor
    series: Tensor
    start: Tensor

    def to(self, device: torch.device | str) -> "WindowBatch":
        """Move the batch to a device, asynchronously where the device can."""
        return WindowBatch(
            *(
                tensor.to(device, non_blocking=True)
                for tensor in (self.values, self.mask, self.series, self.start)
            )
        )


class Windows:
    """All windows of context + target steps of some series, as views.

    A window is a series and an origin: `context_length` steps before the origin, and
    `target_length` steps from it on. The origins are kept as arithmetic progressions, so a window
    needs no memory until :meth:`gather` copies it into a batch.

    A series of at least ``context_length + target_length`` steps has complete windows only: every
    `stride`-th origin, counted back from the last one, whose target ends with the series.

    A shorter series has partial windows, masked outside the series. Every step that a target can
    hold is trained on, in few windows: targets end to end, back from the end of the series, as long
    as one step of context is left. A series shorter than two targets has the window with the
    longest target and the one that splits the series in half. `stride` does not thin these windows.
    A series of fewer than 2 steps has no window.

    Parameters
    ----------
    series : sequence of Tensor, each (time, variables), floating point
        NaN marks a missing value. ``torch.from_numpy(array)`` shares the array's memory.
    context_length, target_length : int
        Steps, at least 1.
    stride : int, default=1
        Steps between the origins of complete windows.

    Raises
    ------
    DataError
        A series has the wrong shape or type, or a length is below 1.
    NotEnoughDataError
        No series has 2 steps.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training.windows import Windows
    >>> windows = Windows([torch.arange(10.0)[:, None]], context_length=3, target_length=2)
    >>> len(windows)
    6
    >>> windows.view(0).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0]
    >>> windows.gather([0, 5]).values.shape
    torch.Size([2, 5, 1])
    """

    def __init__(
        self,
        series: Sequence[Tensor],
        *,
        context_length: int,
        target_length: int,
        stride: int = 1,
    ) -> None:
        for name, value in (
            ("context_length", context_length),
            ("target_length", target_length),
            ("stride", stride),
        ):
            if value < 1:
                raise DataError(f"{name} is {value}; it must be at least 1")
        self.series = tuple(series)
        self.context_length = context_length
        self.target_length = target_length
        self.stride = stride
        self.n_variables = _check_series(self.series)
        self._steps = torch.tensor([len(one) for one in self.series])  # (series,)
        first, step, count = _origins(self._steps, context_length, target_length, stride)
        if int(count.sum()) == 0:
            raise NotEnoughDataError(
                "no series has the 2 steps that a window needs (one of context, one of target); "
                f"the longest of {len(self.series)} series has {int(self._steps.max())}: "
                "give longer series"
            )
        self._keep(torch.arange(len(self.series)), first, step, count)

    def __len__(self) -> int:
        return int(self._ends[-1]) if len(self._ends) else 0

    def view(self, index: int) -> Tensor:
        """Return one window as a view that shares the series' memory.

        The result is (length, variables), in the series' own type, with missing values still NaN;
        of a partial window, the part that lies inside the series.
        """
        series, start = self._locate(torch.tensor([index]))
        return self._inside(int(series), int(start))

    def gather(self, indices: Tensor | Sequence[int]) -> WindowBatch:
        """Copy windows into one batch.

        The indices, from 0 to ``len(self) - 1``, may repeat; the batch has their order and lies on
        the CPU.
        """
        series, start = self._locate(torch.as_tensor(indices, dtype=torch.int64))
        length = self.context_length + self.target_length
        values = torch.empty(len(start), length, self.n_variables)  # (batch, length, variables)
        complete = (start >= 0) & (start + length <= self._steps[series])
        window_list = list(zip(series.tolist(), start.tolist()))
        if window_list and complete.all():
            # One call: twice as fast as copying window by window.
            torch.stack([self.series[i].narrow(0, at, length) for i, at in window_list], out=values)
        else:
            values.fill_(torch.nan)
            for row, (i, at) in zip(values, window_list):
                part = self._inside(i, at)
                row.narrow(0, max(0, -at), len(part)).copy_(part)
        mask = values == values  # only NaN differs from itself
        values.nan_to_num_(nan=0.0, posinf=torch.inf, neginf=-torch.inf)
        return WindowBatch(values, mask, series, start)

    def split(self, held_out: float | Tensor) -> "tuple[Windows, Windows]":
        """Split the windows in time, so that no training window contains a validation step.

        Validation windows have their whole target in the steps that are held out, and their
        contexts may reach back. Training windows end before these steps; windows across the border
        are dropped. Where that leaves none, the windows of a series that ends at the border are
        cut. A series with fewer than 2 steps before the border is used for training only.

        Parameters
        ----------
        held_out : float or Tensor (series,)
            The share of each series to hold out, at its end; or the steps, for each series.

        Returns
        -------
        training, validation : Windows
            `validation` is empty where every series is too short.
        """
        if isinstance(held_out, Tensor):
            steps = held_out.long()
        elif not 0 <= held_out < 1:
            raise DataError(f"validation_fraction is {held_out}; it must be at least 0 and below 1")
        else:
            steps = torch.round(held_out * self._steps.double()).long()
        ends = torch.where(self._steps - steps >= 2, self._steps - steps, self._steps)  # (series,)
        border = ends[self._row_series]  # (rows,)
        fits = 1 + torch.div(
            border - self.target_length - self._first, self._step, rounding_mode="floor"
        )  # origins whose target ends at or before the border
        fits = torch.where(border < self._steps[self._row_series], fits, self._count)
        fits = fits.clamp(min=0).minimum(self._count)
        past = -torch.div(self._first - border, self._step, rounding_mode="floor")
        past = past.clamp(min=0).minimum(self._count)  # origins before the border

        training, validation = copy.copy(self), copy.copy(self)
        training.series = tuple(one[:end] for one, end in zip(self.series, ends.tolist()))
        training._steps = ends
        first, step, count = _origins(ends, self.context_length, self.target_length, self.stride)
        cut_anew = (self._per_series(fits) == 0) & (self._per_series(self._count) > 0)
        rows = torch.cat([self._row_series, torch.arange(len(ends))])
        order = torch.argsort(rows, stable=True)
        training._keep(
            rows[order],
            torch.cat([self._first, first])[order],
            torch.cat([self._step, step])[order],
            torch.cat([fits, torch.where(cut_anew, count, 0)])[order],
        )
        validation._keep(
            self._row_series, self._first + past * self._step, self._step, self._count - past
        )
        return training, validation

    def fingerprint(self) -> dict[str, int | str]:
        """Return the facts that tell these windows from others; see `TrainingSet`."""
        return {
            "windows": len(self),
            "context_length": self.context_length,
            "target_length": self.target_length,
            "n_variables": self.n_variables,
            "data": digest(*self.series, self._row_series, self._first, self._step),
        }

    def positions(self) -> tuple[Tensor, Tensor]:
        """Return the series and the first step of each window: both (windows,), int64."""
        return self._locate(torch.arange(len(self)))

    def series_present(self) -> set[int]:
        """Return the indices of the series that have windows."""
        return set(self._row_series.tolist())

    def thin(self, most: int, *, jitter: bool = False) -> "Windows":
        """Keep at most `most` windows, evenly spaced, with the last one.

        The windows are ordered by series and time: each series keeps its share. The result is
        always the same. ``jitter`` takes one window at random of each of `most` equal parts, so
        that all phases of a season are there.
        """
        if most < 1:
            raise DataError(f"most is {most}; it must be at least 1")
        if most >= len(self):
            return self
        chosen = torch.arange(1, most + 1) * len(self) // most - 1
        if jitter:
            chosen = one_of_each_part(len(self), most, torch.Generator().manual_seed(0))
        series, start = self._locate(chosen)
        thinned = copy.copy(self)
        ones = torch.ones_like(start)
        thinned._keep(series, start + self.context_length, ones, ones)
        return thinned

    def _keep(self, series: Tensor, first: Tensor, step: Tensor, count: Tensor) -> None:
        """Keep rows of origins: ``first + step * k`` of a series for each k < count."""
        full = count > 0
        self._row_series, self._first = series[full], first[full]
        self._step, self._count = step[full], count[full]
        self._ends = self._count.cumsum(0)  # windows up to and with each row

    def _locate(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Find the series and the first step (may be negative) of each window, both (batch,)."""
        outside = indices[(indices < 0) | (indices >= len(self))]
        if len(outside):
            raise IndexError(f"window {int(outside[0])} of {len(self)} windows")
        row = torch.searchsorted(self._ends, indices, right=True)
        nth = indices - (self._ends - self._count)[row]
        origin = self._first[row] + self._step[row] * nth
        return self._row_series[row], origin - self.context_length

    def _inside(self, series: int, start: int) -> Tensor:
        """Return a view of the part of a window inside its series."""
        values = self.series[series]
        begin = max(0, start)
        end = min(len(values), start + self.context_length + self.target_length)
        return values[begin:end]

    def _per_series(self, counts: Tensor) -> Tensor:
        """Add up the counts of rows for each series."""
        return torch.zeros_like(self._steps).index_add(0, self._row_series, counts)


class DrawnWindows:
    """A training set that draws some of the windows at random for each epoch.

    The time of an epoch does not grow with the number of windows. Each epoch takes one window of
    each of `per_epoch` equal parts, so that all series and times have their share.

    Parameters
    ----------
    windows : Windows
        More than `per_epoch` windows.
    per_epoch : int
        Windows of an epoch.

    Examples
    --------
    >>> import torch
    >>> from tsllm.training.windows import DrawnWindows, Windows
    >>> windows = Windows([torch.arange(90.0)[:, None]], context_length=3, target_length=2)
    >>> drawn = DrawnWindows(windows, 8)
    >>> len(drawn), [len(batch) for batch in drawn.batches(4, torch.Generator())]
    (8, [4, 4])
    """

    def __init__(self, windows: Windows, per_epoch: int) -> None:
        self.windows, self.per_epoch = windows, per_epoch

    def __len__(self) -> int:
        return self.per_epoch

    def gather(self, indices: Tensor) -> WindowBatch:
        """Copy windows, by their numbers among all windows, into one batch."""
        return self.windows.gather(indices)

    def fingerprint(self) -> dict[str, int | str]:
        """Return the facts that tell these windows from others; see `TrainingSet`."""
        return {**self.windows.fingerprint(), "per_epoch": self.per_epoch}

    def batches(self, batch_size: int, generator: torch.Generator | None) -> list[Tensor]:
        """Draw the windows of an epoch and split them into batches."""
        drawn = one_of_each_part(len(self.windows), self.per_epoch, generator)
        order = torch.randperm(self.per_epoch, generator=generator)
        return list(drawn[order].split(batch_size))


def one_of_each_part(count: int, parts: int, generator: torch.Generator | None) -> Tensor:
    """Split the numbers below ``count`` into equal parts and draw one of each: (parts,), rising."""
    place = torch.arange(parts) + torch.rand(parts, generator=generator, dtype=torch.float64)
    return (place * count / parts).long().clamp(max=count - 1)


def _check_series(series: Sequence[Tensor]) -> int:
    """Check shapes and types; return the number of variables that all series share."""
    if not series:
        raise NotEnoughDataError("there is no series to cut windows from; give at least one")
    for position, one in enumerate(series):
        if one.ndim != 2 or not one.is_floating_point():
            raise DataError(
                f"series {position} (counted from 0) has shape {tuple(one.shape)} and type "
                f"{one.dtype}; it must be (time, variables) of a floating-point type"
            )
        if one.shape[1] != series[0].shape[1]:
            raise DataError(
                f"series {position} (counted from 0) has {one.shape[1]} variables where series 0 "
                f"has {series[0].shape[1]}; all series must have the same variables"
            )
    return series[0].shape[1]


def _origins(
    steps: Tensor, context_length: int, target_length: int, stride: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute each series' origins as a progression: first, step and count, each (series,)."""
    spare = steps - context_length - target_length
    complete_count = torch.div(spare, stride, rounding_mode="floor") + 1
    complete_first = steps - target_length - (complete_count - 1) * stride

    # At least two targets long: targets laid end to end, back from the end of the series.
    laid_first = (steps - 1) % target_length + 1
    laid_count = torch.div(steps - 1, target_length, rounding_mode="floor")

    # Shorter: the longest target that leaves one step of context, and the middle of the series.
    longest_first = (steps - target_length).clamp(min=1)
    to_middle = torch.div(steps, 2, rounding_mode="floor") - longest_first
    longest_count = torch.where(to_middle > 0, 2, 1)

    complete, laid = spare >= 0, steps >= 2 * target_length
    first = torch.where(complete, complete_first, torch.where(laid, laid_first, longest_first))
    step = torch.where(laid, target_length, to_middle.clamp(min=1))
    step = torch.where(complete, stride, step)
    count = torch.where(complete, complete_count, torch.where(laid, laid_count, longest_count))
    return first, step, torch.where(steps >= 2, count, 0)
