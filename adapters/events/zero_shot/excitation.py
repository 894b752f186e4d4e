"""Hawkes processes, estimated from the events so far by the EM algorithm with gamma priors.

The kernels are sums of the exponentials of `DECAYS`, with weights of each type that is caused or,
where types share a branching number, of all types. The sums that an estimate needs are closed: the
integral of a kernel after events is their number less their decayed number. Each step takes the
mean of a parameter's posterior given the responsibilities; estimates that favour few parameters,
such as the mode, lose the excitation in short streams and do not find it again.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tsllm.adapters.events.zero_shot.history import DECAYS, History, hold, refits

#: Which branching numbers are equal: all types alike, own and other types, or none.
TIES = ("alike", "own", "pairs")
#: Steps of each estimate; it starts from the one before.
STEPS = 4
#: Prior weights of the exponentials, in events.
PRIOR_KERNEL = (0.05, 0.1, 0.13, 0.13, 0.13, 0.1, 0.05)
#: Prior of the base rates: half an event a unit of time, seen for one unit.
BASE_SHAPE, BASE_TIME = 0.6, 1.0
#: Prior of the branching: events caused, and events that could cause them.
CAUSED, CAUSES = 0.7, 2.0


def poisson(history: History) -> Tensor:
    """Estimate constant rates of the types: (batch, positions, types)."""
    n_types = history.kinds.shape[-1]
    counted = history.counted[..., None] * history.kinds
    sums = torch.nn.functional.pad(counted.cumsum(1), (0, 0, 1, 0))
    return (sums + 1.0 / n_types) / (history.time[..., None] + 1.0)


def excited(history: History, ties: str) -> tuple[Tensor, Tensor]:
    """Estimate a Hawkes process at every position.

    Returns
    -------
    base : Tensor
        (batch, positions, types), the base rates.
    risen : Tensor
        (batch, positions, types, decays), the excitation right after the position's event, which
        falls at the rates of `DECAYS`.
    """
    size, events, n_types = history.kinds.shape
    decays = history.gaps.new_tensor(DECAYS)
    prior = history.gaps.new_tensor(PRIOR_KERNEL)
    eye = torch.eye(n_types, device=decays.device)
    share = torch.full_like(history.counts[:, 0], 1.0 / n_types)  # (batch, types)
    base = BASE_SHAPE * share
    alpha = _spread(ties, share, eye, CAUSED / CAUSES)
    kernel = (prior / prior.sum()).expand(size, n_types, -1)  # (batch, types, decays)
    found: list[tuple[Tensor, Tensor]] = []
    for seen in refits(events):
        if seen:
            kinds = history.kinds[:, :seen] * history.counted[:, :seen, None]
            before = history.before[:, :seen]  # (batch, events, source, decays)
            time = history.time[:, seen, None]
            caused = history.counts[:, seen, :, None] - history.after[:, seen]  # (batch, l, decays)
            share = (history.counts[:, seen] + 1.0 / n_types) / (
                history.counts[:, seen].sum(-1, keepdim=True) + 1.0
            )
        for _ in range(STEPS if seen else 0):
            own_kernel = kinds @ (kernel * decays)  # (batch, events, decays): of its type
            parts = (before @ own_kernel[..., None])[..., 0]  # (batch, events, source)
            of_kind = kinds @ alpha  # (batch, events, source): of the event's own type
            total = (kinds * base[:, None]).sum(-1) + (of_kind * parts).sum(-1)
            total = total.clamp_min(1e-12)[..., None]
            by_base = base * (kinds / total).sum(1)  # (batch, types)
            by_pair = alpha * (kinds.mT @ (parts / total))  # (batch, types, source)
            at_decay = ((of_kind / total)[:, :, None] @ before)[:, :, 0]  # (batch, events, decays)
            by_decay = kernel * decays * (kinds.mT @ at_decay)  # (batch, types, decays)
            exposed = kernel @ caused.mT  # (batch, types, source)
            alpha = _branching(ties, by_pair, exposed, share, eye)
            if ties == "alike":
                shape = BASE_SHAPE + by_base.sum(1, keepdim=True)
                base = share * shape / (BASE_TIME + time)
            else:
                base = (BASE_SHAPE / n_types + by_base) / (BASE_TIME + time)
            out = alpha @ caused  # (batch, types, decays)
            if ties != "pairs":  # one kernel for all types
                by_decay = by_decay.sum(1, keepdim=True).expand(-1, n_types, -1)
                out = out.sum(1, keepdim=True).expand(-1, n_types, -1)
            kernel = (prior + by_decay) / (prior + out)
            kernel = kernel / kernel.sum(-1, keepdim=True)
        found.append((base, alpha[..., None] * (kernel * decays)[:, :, None]))
    bases = hold([one[0] for one in found], events)
    starts = [*refits(events), events + 1]
    risen = [
        torch.einsum("bkld,bpld->bpkd", one[1], history.after[:, start:end])
        for one, start, end in zip(found, starts[:-1], starts[1:], strict=True)
    ]
    return bases, torch.cat(risen, 1)


def _spread(ties: str, share: Tensor, eye: Tensor, total: float) -> Tensor:
    """Spread a branching number over the types that are caused: (batch, types, source)."""
    if ties == "alike":
        return total * share[..., None].expand(-1, -1, share.shape[1])
    return total * (0.5 * eye + 0.5 * share[..., None])


def _branching(ties: str, by_pair: Tensor, exposed: Tensor, share: Tensor, eye: Tensor) -> Tensor:
    """Estimate branching numbers, (batch, types, source), from responsibilities and exposures."""
    n_types = len(eye)
    if ties == "pairs":
        return (CAUSED / n_types + by_pair) / (CAUSES + exposed)
    exposed = exposed[:, 0]  # one kernel: the same for all types
    if ties == "alike":
        mean = (CAUSED + by_pair.sum((1, 2))) / (CAUSES + exposed.sum(1))
        return mean[:, None, None] * share[..., None].expand(-1, -1, n_types)
    own = (by_pair * eye).sum((1, 2))
    other = by_pair.sum((1, 2)) - own
    # An event causes events of its own type, and of the other types by their shares.
    apart = share[..., None] * (1 - eye)  # (batch, types, source)
    to_own = (CAUSED / 2 + own) / (CAUSES + exposed.sum(1))
    to_other = (CAUSED / 2 + other) / (CAUSES + (apart.sum(1) * exposed).sum(1))
    return to_own[:, None, None] * eye + to_other[:, None, None] * apart
