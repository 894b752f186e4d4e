"""Softmax averages of all prefixes at once: Aaren's attention in linear time and memory.

For scores s and values v, output k is ``sum_{i<=k} exp(s_i) v_i / sum_{i<=k} exp(s_i)``.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from tsllm.adapters.aaren.state import AarenState, finite_or_zero

METHODS = ("auto", "segmented", "matmul")
#: Within a segment all weights are relative to its last running maximum. While that rises by no
#: more than this, the smallest weight keeps its digits: exp(-40) in float32, exp(-600) in float64.
MAX_RISE = {torch.float32: 40.0, torch.float64: 600.0}


def prefix_scan(
    scores: Tensor,
    values: Tensor,
    state: AarenState | None = None,
    *,
    method: str = "auto",
    chunk: int | None = None,
) -> tuple[Tensor, AarenState]:
    """Average the values of each prefix, weighted by the softmax of its scores.

    Feng et al., "Attention as an RNN" (arXiv 2405.13956, section 3.2), for any range of scores. A
    score of -inf masks its token exactly; before the first unmasked token the output and all its
    gradients are 0.

    Parameters
    ----------
    scores : Tensor
        ``(batch, heads, tokens)``. Sums and maxima of scores keep their dtype: float64 scores
        (positions times a decay) lose nothing beside float32 values.
    values : Tensor
        ``(batch, heads, tokens, width)``, finite, of any strides and float dtype; half precision is
        converted segment by segment.
    state : AarenState or None, default=None
        The tokens before these. Its dtype is used for computation where it is wider.
    method : {"auto", "segmented", "matmul"}, default="auto"
        "segmented": cumulative sums over segments with an analytic first derivative; additional
        memory is the output and two scalars a token and head. "matmul": plain operations over all
        segments at once, for GPUs, second derivatives, `torch.func` and export. "auto": matmul on a
        GPU and under `torch.compile`, otherwise segmented.
    chunk : int or None, default=None
        Tokens of a segment. None: 64, or 128 for small batches.

    Returns
    -------
    averages : Tensor
        The shape, dtype and memory layout of ``values``.
    state : AarenState
        Of all tokens. Gradients flow through ``u`` and ``w``; ``m`` is only a scale and has none.

    Examples
    --------
    >>> scores = torch.tensor([[[0.0, 0.0, -torch.inf, 0.0]]])
    >>> averages, state = prefix_scan(scores, torch.tensor([[[[1.0], [3.0], [9.0], [5.0]]]]))
    >>> averages.flatten().tolist()
    [1.0, 2.0, 2.0, 3.0]
    """
    _check(scores, values, state, method, chunk)
    batch, heads, _, width = values.shape
    dtype = torch.promote_types(values.dtype, torch.float32)
    if state is None:
        state = AarenState.empty(batch, heads=heads, width=width, dtype=dtype, device=values.device)
    dtype = torch.promote_types(dtype, state.w.dtype)
    if scores.dtype not in MAX_RISE:
        scores = scores.float()
    state = AarenState(state.m.to(scores.dtype), state.u.to(dtype), state.w.to(dtype))
    if values.shape[2] == 0:
        return torch.empty_like(values), state
    if chunk is None:
        chunk = 64 if batch * heads >= 32 else 128
    if method == "auto":
        plain = values.is_cuda or torch.compiler.is_compiling()
        method = "matmul" if plain else "segmented"
    with torch.autocast(values.device.type, enabled=False):
        if method == "matmul":
            # The recursion needs segments of at least two tokens.
            return _matmul_average(scores, values, state, max(2, chunk))
        averages, m, u, w = _Segmented.apply(scores, values, *state, chunk)
    return averages, AarenState(m, u, w)


class _Segmented(torch.autograd.Function):
    """Cumulative sums over segments, each relative to its last running maximum.

    With ``L_k = m_k + log u_k``, output gradients g and ``r_k = g_k . o_k``, the derivatives are
    ``dv_i = exp(s_i) sum_{k>=i} exp(-L_k) g_k`` and
    ``ds_i = v_i . dv_i - exp(s_i) sum_{k>=i} exp(-L_k) r_k``: sums from the end.
    """

    @staticmethod
    def forward(
        ctx: Any, s: Tensor, v: Tensor, m0: Tensor, u0: Tensor, w0: Tensor, chunk: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = w0.dtype
        # Differences of large scores round in float32; a row of values has only one score.
        all_scores, m0 = s.double(), m0.double()
        m = torch.maximum(all_scores.cummax(-1).values, m0[..., None])  # (batch, heads, tokens)
        steep = _steep_segments(m, chunk, MAX_RISE[dtype])
        out = torch.empty_like(v)  # (batch, heads, tokens, width)
        sums = torch.empty(m.shape, dtype=dtype, device=m.device)  # u_k, (batch, heads, tokens)
        before, u, w = m0, u0, w0
        for k, first in enumerate(range(0, s.shape[-1], chunk)):
            part = slice(first, first + chunk)
            scores, maxima, x = all_scores[..., part], m[..., part], v[:, :, part]
            if steep[k]:
                weights = _triangle(scores, maxima, dtype)  # (batch, heads, chunk, chunk)
                old = (before[..., None] - finite_or_zero(maxima)).exp().to(dtype)
                x = weights @ x.to(dtype) + old[..., None] * w[:, :, None]
                total = weights.sum(-1) + old * u[..., None]  # (batch, heads, chunk)
            else:
                top = finite_or_zero(maxima[..., -1:])
                total = (scores - top).exp().to(dtype)
                old = (before - top[..., 0]).exp().to(dtype)  # (batch, heads)
                # Contiguous: cumulative sums along strided rows are slow.
                x = torch.mul(total[..., None], x, out=x.new_empty(x.shape, dtype=dtype))
                x[:, :, 0] += old[..., None] * w
                total[..., 0] += old * u
                x, total = x.cumsum_(2), total.cumsum_(-1)
            sums[..., part] = total
            before, u, w = maxima[..., -1], total[..., -1], x[:, :, -1].clone()
            out[:, :, part] = x.div_(torch.where(total > 0, total, 1.0)[..., None])
        ctx.save_for_backward(s, v, m, sums, out, m0, u0, w0)
        ctx.chunk, ctx.steep = chunk, steep
        final = before.clone().to(s.dtype)  # exact: it is one of the scores
        ctx.mark_non_differentiable(final)
        return out, final, u.clone(), w

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, g: Tensor, gm: Tensor, gu: Tensor, gw: Tensor
    ) -> tuple[Tensor | None, ...]:
        s, v, m, sums, out, m0, u0, w0 = ctx.saved_tensors
        chunk, dtype = ctx.chunk, w0.dtype
        all_scores = s.double()
        ds, dv = torch.empty_like(s), torch.empty_like(v)
        # The sums over all later outputs, relative to the maximum `after`; they start from the
        # gradients of the final state.
        after, G, R = m[..., -1], gw.to(dtype), -gu.to(dtype)
        for first in reversed(range(0, s.shape[-1], chunk)):
            part = slice(first, first + chunk)
            scores, maxima, total = all_scores[..., part], m[..., part], sums[..., part]
            x = v[:, :, part]
            inverse = torch.where(total > 0, 1 / total, 0.0)[..., None]
            h = torch.mul(g[:, :, part], inverse, out=x.new_empty(x.shape, dtype=dtype))
            r = (h * out[:, :, part]).sum(-1)  # (batch, heads, chunk)
            top = finite_or_zero(maxima[..., -1:])
            # The factor from the scale of later segments to this one's: at most 1.
            less = (top[..., 0] - finite_or_zero(after)).exp().to(dtype)  # (batch, heads)
            G, R = less[..., None] * G, less * R
            e = (scores - top).exp().to(dtype)
            before = m0 if first == 0 else m[..., first - 1]
            if ctx.steep[first // chunk]:
                weights = _triangle(scores, maxima, dtype).mT  # (batch, heads, chunk, chunk)
                dx = weights @ h + e[..., None] * G[:, :, None]
                minus = (weights @ r[..., None])[..., 0] + e * R[..., None]
                # Relative to the last maximum: those before it are smaller.
                old = (before[..., None] - finite_or_zero(maxima)).exp().to(dtype)
                back = (before - top[..., 0]).exp().to(dtype)  # (batch, heads)
                G = back[..., None] * G + (old[..., None] * h).sum(2)
                R = back * R + (old * r).sum(-1)
            else:
                h[:, :, -1] += G
                r[..., -1] += R
                h, r = h.flip(2).cumsum_(2).flip(2), r.flip(-1).cumsum_(-1).flip(-1)
                dx, minus = e[..., None] * h, e * r
                back = (before - top[..., 0]).exp().to(dtype)
                G, R = back[..., None] * h[:, :, 0], back * r[..., 0]
            dv[:, :, part] = dx
            ds[..., part] = (x * dx).sum(-1) - minus
            after = before
        # The tokens of the initial state are one token of score m0.
        return ds, dv, ((w0 * G).sum(-1) - u0 * R).to(s.dtype), -R, G, None


def _matmul_average(
    scores: Tensor, values: Tensor, state: AarenState, chunk: int
) -> tuple[Tensor, AarenState]:
    """Average by plain operations; the state is one more token at the front."""
    dtype = state.w.dtype
    m = torch.cat([state.m[..., None], scores], -1)  # (batch, heads, 1 + tokens)
    u = functional.pad(state.u[..., None], (0, scores.shape[-1]), value=1.0)
    w = torch.cat([state.w[:, :, None], values.to(dtype)], 2)  # (batch, heads, 1 + tokens, width)
    m, u, w = _scan(m, u, w, chunk)
    out = w[:, :, 1:] / torch.where(u > 0, u, 1.0)[..., 1:, None]
    # Copies: a view would keep all tokens in memory.
    state = AarenState(m[..., -1].clone(), u[..., -1].clone(), w[:, :, -1].clone())
    return out.to(values.dtype), state


def _scan(m: Tensor, u: Tensor, w: Tensor, chunk: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge each prefix of states (..., n), (..., n), (..., n, width); all segments at once."""
    n = m.shape[-1]
    if n <= chunk:
        top = m.detach().cummax(-1).values  # an arbitrary scale, without gradient
        weights = _triangle(m, top, w.dtype)  # (..., n, n)
        return top, (weights @ u[..., None])[..., 0], weights @ w
    pad = -n % chunk
    m = functional.pad(m, (0, pad), value=-torch.inf).unflatten(-1, (-1, chunk))
    u = functional.pad(u, (0, pad)).unflatten(-1, (-1, chunk))  # (..., segments, chunk)
    w = functional.pad(w, (0, 0, 0, pad)).unflatten(-2, (-1, chunk))
    m, u, w = _scan(m, u, w, chunk)
    ends = _scan(m[..., -1], u[..., -1], w[..., -1, :], chunk)  # (..., segments)
    before = functional.pad(ends[0], (1, -1), value=-torch.inf)[..., None]
    old_u = functional.pad(ends[1], (1, -1))[..., None]
    old_w = functional.pad(ends[2], (0, 0, 1, -1))[..., None, :]  # (..., segments, 1, width)
    top = torch.maximum(m, before)
    new, old = (m - finite_or_zero(top)).exp().to(w.dtype), (before - finite_or_zero(top)).exp()
    old = old.to(w.dtype)
    u = new * u + old * old_u
    w = new[..., None] * w + old[..., None] * old_w
    return (top.flatten(-2)[..., :n], u.flatten(-2)[..., :n], w.flatten(-3, -2)[..., :n, :])


def _triangle(scores: Tensor, maxima: Tensor, dtype: torch.dtype) -> Tensor:
    """Compute the weight exp(s_i - m_k) of token i in output k, 0 where i is later: (..., n, n)."""
    n = scores.shape[-1]
    later = torch.ones(n, n, dtype=torch.bool, device=scores.device).triu(1)
    differences = scores[..., None, :] - finite_or_zero(maxima)[..., None]
    # Masked before exp: a later, larger score would overflow.
    return differences.masked_fill(later, -torch.inf).exp().to(dtype)


def _steep_segments(m: Tensor, chunk: int, most: float) -> list[bool]:
    """Return in which segments the running maximum rises too far for plain cumulative sums."""
    tokens = m.shape[-1]
    padded = torch.cat([m, m[..., -1:].expand(*m.shape[:-1], -tokens % chunk)], -1)
    segments = padded.unflatten(-1, (-1, chunk))  # (batch, heads, segments, chunk)
    # A segment that starts with masked tokens rises from its first unmasked token.
    first = torch.where(segments > -torch.inf, segments, torch.inf).amin(-1)
    rise = segments[..., -1] - first  # -inf where all is masked
    steep: list[bool] = (rise > most).flatten(0, 1).any(0).tolist()
    return steep


def _check(
    scores: Tensor, values: Tensor, state: AarenState | None, method: str, chunk: int | None
) -> None:
    """Check the arguments of `prefix_scan`."""
    if scores.ndim != 3 or values.shape[:-1] != scores.shape:
        raise ValueError(
            "scores must be (batch, heads, tokens) and values (batch, heads, tokens, width), got "
            f"{tuple(scores.shape)} and {tuple(values.shape)}"
        )
    expected = (*values.shape[:2], values.shape[3])
    if state is not None and tuple(state.w.shape) != expected:
        raise ValueError(
            f"the state holds w of shape {tuple(state.w.shape)}, and the values need {expected}: "
            "pass the state of the same batch, heads and width"
        )
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    if chunk is not None and chunk < 1:
        raise ValueError(f"chunk must be at least 1 token, got {chunk}")
