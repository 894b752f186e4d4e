"""The handle of the shared, frozen language model, and its causal pass on embeddings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn

from tsllm.backbone.devices import backbone_autocast
from tsllm.backbone.forks import limit_threads_after_fork
from tsllm.backbone.last_token import read_at
from tsllm.backbone.shared import SharedBackbone
from tsllm.backbone.stopping import check_time
from tsllm.errors import BackboneMismatchError, DataError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Hidden(NamedTuple):
    """The output of the language model for a batch of tokens."""

    states: Tensor  # (batch, tokens, hidden) float32, on the backbone's device
    past: Any  # the KV cache; None without use_cache


class ModelFacts:
    """The facts that a shared handle and a private shell have in common."""

    _shared: SharedBackbone

    @property
    def device(self) -> torch.device:
        """Return the device of the frozen weights."""
        return self._shared.device

    @property
    def dtype(self) -> torch.dtype:
        """Return the dtype of the frozen weights."""
        return self._shared.dtype

    @property
    def hidden_size(self) -> int:
        """Return the width of the token embeddings and of the states."""
        return self._shared.hidden_size

    @property
    def n_layers(self) -> int:
        """Return the number of layers that were kept."""
        return self._shared.config.num_hidden_layers

    @property
    def max_positions(self) -> int | None:
        """Return the largest number of tokens that the model takes; None: no limit."""
        return self._shared.max_positions

    @property
    def vocab_size(self) -> int:
        """Return the number of rows of the word embeddings."""
        return self._shared.word_embeddings.shape[0]

    @property
    def model_type(self) -> str:
        """Return transformers' name of the architecture."""
        return self._shared.config.model_type

    @property
    def natively_causal(self) -> bool:
        """Return False for an encoder, which ``hidden`` runs with a causal mask."""
        return self._shared.natively_causal

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the model's tokenizer; it is shared, so leave its settings as they are."""
        return self._shared.tokenizer

    @property
    def word_embeddings(self) -> Tensor:
        """Return the shared frozen word embeddings, (vocab, hidden), in the weights' dtype."""
        return self._shared.word_embeddings


class Backbone(ModelFacts):
    """A handle of a frozen language model; `load_backbone` makes it.

    It is not an ``nn.Module``: as an attribute of one, it adds nothing to the parameters or the
    state dict. A copy is the handle itself. A pickle holds the arguments of `load_backbone` and no
    weights. Two handles are equal when they share their weights.

    Parameters
    ----------
    spec : str
        As given to `load_backbone`.
    arguments : mapping
        The other arguments of `load_backbone`.
    shared : SharedBackbone
        The weights.

    Attributes
    ----------
    spec : str
    layers : int or None
    revision : str or None
        As given to `load_backbone`.

    See Also
    --------
    load_backbone : Find and load a language model.
    tsllm.backbone.tuned : Train weights inside the language model.

    Examples
    --------
    >>> import torch
    >>> from tsllm.backbone import load_backbone
    >>> backbone = load_backbone("random:bert?seed=1", device="cpu")
    >>> states, past = backbone.hidden(torch.zeros(3, 7, backbone.hidden_size))
    >>> states.shape
    torch.Size([3, 7, 64])
    """

    def __init__(self, spec: str, arguments: Mapping[str, Any], shared: SharedBackbone) -> None:
        self.spec = spec
        self.layers: int | None = arguments["layers"]
        self.revision: str | None = arguments["revision"]
        self.arguments = dict(arguments)
        self._shared = shared

    @property
    def source(self) -> str:
        """Return the place where the weights were found, in words."""
        return self._shared.words

    @property
    def trained_whole(self) -> bool:
        """Return True for a ``layer:...`` spec: each estimator trains a layer of its own."""
        return self._shared.trained_whole

    @property
    def digest(self) -> str:
        """Return the sha256 of weights, config, kept layers and tokenizer, on any device."""
        return self._shared.digest

    @property
    def quantisation(self) -> str | None:
        """Return how the weights are rounded, such as "Q4_1, Q8_0" or "int8"; None: they are not.

        The first are types of GGUF files, whose rounded weights are unpacked; "int8" and "int4" are
        those that ``dtype`` asks for.
        """
        origin = self._shared.origin
        given = (None if origin is None else origin.quantisation, self._shared.quantisation)
        return ", then ".join(one for one in given if one is not None) or None

    @property
    def licence(self) -> str | None:
        """Return the licence that the GGUF file of the weights states; None for other weights."""
        return None if self._shared.origin is None else self._shared.origin.licence

    def to_state(self) -> dict[str, Any]:
        """Return the facts of the backbone that a saved model holds."""
        facts: dict[str, Any] = {
            "spec": self.spec,
            "layers": self.n_layers,
            "digest": self.digest,
        }
        origin = self._shared.origin
        if self.quantisation is not None:
            facts["quantisation"] = self.quantisation
        if origin is not None:
            facts |= {"gguf_file": origin.file, "gguf_sha256": origin.sha256}
        return facts

    def check_state(self, saved: Mapping[str, Any], argument: str = "backbone") -> None:
        """Raise where a saved model was trained with other weights than these.

        ``argument`` is the name of the one that gives another place of the weights.
        """
        if self.digest != saved["digest"]:
            before, now = saved.get("quantisation"), self.quantisation
            rounded = ""
            if before != now:
                rounded = f" (its weights were {_rounded(before)}, and these are {_rounded(now)})"
            raise BackboneMismatchError(
                f"the model was trained with the backbone {saved['spec']} of digest "
                f"{saved['digest']}, and {self.source} has digest {self.digest}{rounded}: pass the "
                f"place of the same weights as {argument}=..., or fit anew"
            )

    @property
    def parameter_count(self) -> int:
        """Return the number of frozen weights."""
        return self._shared.parameter_count

    @property
    def weight_bytes(self) -> int:
        """Return the memory of the frozen weights, in bytes."""
        return self._shared.weight_bytes

    def hidden(
        self,
        inputs_embeds: Tensor,
        past: Any = None,
        *,
        attention_mask: Tensor | None = None,
        positions: Tensor | None = None,
        use_cache: bool = False,
        last_only: bool = False,
    ) -> Hidden:
        """Run the language model causally over embedded tokens.

        Each token attends to itself and earlier ones, in encoders too. Gradients flow to
        ``inputs_embeds`` under the caller's grad mode; the weights never get any.

        Parameters
        ----------
        inputs_embeds : Tensor (batch, tokens, hidden)
            Of any float dtype, on the backbone's device.
        past : KV cache or None, default=None
            The ``past`` of an earlier call; these tokens continue it and are added to it in place.
        attention_mask : Tensor or None, default=None
            (batch, past + tokens), bool or int: 1 where a token is real. The state of a real token
            does not depend on the masked positions. Positions count all columns, masked ones too,
            so a row's states do not depend on the other rows. The state of a masked token is
            finite but means nothing. Or (batch, tokens, past + tokens), bool: the columns that each
            of these tokens attends to, always itself and never later ones.
        positions : Tensor (batch or 1, tokens), int64, or None, default=None
            The positions of these tokens. None: their columns.
        use_cache : bool, default=False
            Whether to return a KV cache.
        last_only : bool, default=False
            Whether to return the state of the last token alone, (batch, 1, hidden). The last layer
            then computes no other, where the architecture allows it (GPT-2 and BERT).

        Returns
        -------
        Hidden
            ``states`` (batch, tokens, hidden) float32, and ``past``.

        Raises
        ------
        DataError
            More tokens than ``max_positions``, or tensors of the wrong shape.
        """
        shared = self._shared
        return run_causally(
            shared,
            shared.last_token(causal=True) if last_only else shared.causal,
            inputs_embeds,
            past,
            attention_mask=attention_mask,
            positions=positions,
            use_cache=use_cache,
            last_only=last_only,
        )

    @torch.no_grad()
    def last_token(
        self, texts: Sequence[str], *, batch_size: int = 32, add_special_tokens: bool = True
    ) -> Tensor:
        """Embed texts as the states of their last tokens in the last layer.

        Attention is the model's own: both ways in an encoder, causal in a decoder. In float32 a
        text's embedding is the same within 1e-5 in any batch.

        Parameters
        ----------
        texts : sequence of str
            They are never cut; a text that is too long is an error.
        batch_size : int, default=32
            Texts run at once.
        add_special_tokens : bool, default=True
            Whether the tokenizer adds its own (for BERT the last token is then ``[SEP]``).

        Returns
        -------
        Tensor (texts, hidden)
            float32 on the CPU, in the order of the texts.

        Raises
        ------
        DataError
            A text that has no tokens or more than ``max_positions``, or is not a str.

        Examples
        --------
        >>> from tsllm.backbone import load_backbone
        >>> load_backbone("random:gpt2", device="cpu").last_token(["up", "down"]).shape
        torch.Size([2, 64])
        """
        if batch_size < 1:
            raise DataError(f"batch_size={batch_size!r} must be at least 1.")
        embeddings = torch.empty(len(texts), self.hidden_size)  # (texts, hidden)
        tokens = self.tokens(texts, add_special_tokens=add_special_tokens)
        # Texts of similar length share a batch, so that little is computed for padding.
        order = sorted(range(len(texts)), key=lambda number: len(tokens[number]))
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            embeddings[rows] = self.last_states([tokens[row] for row in rows]).float().cpu()
        return embeddings

    def tokens(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """Tokenise texts for :meth:`last_states`; the errors are those of :meth:`last_token`."""
        _check_texts(texts)
        if not len(texts):
            return []
        tokens = self._shared.tokenize(texts, add_special_tokens=add_special_tokens)
        self._check_lengths(texts, tokens)
        return tokens

    def token_counts(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[int]:
        """Count the tokens of texts of any length."""
        _check_texts(texts)
        tokens = self._shared.tokenize(texts, add_special_tokens=add_special_tokens)
        return [len(row) for row in tokens]

    @torch.no_grad()
    def last_states(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Return each row's last token in the last layer, for one batch of token ids.

        Parameters
        ----------
        tokens : sequence of sequence of int, (batch, at least 1 each)
            Rows may differ in length; they are padded on the right.

        Returns
        -------
        Tensor (batch, hidden)
            In the weights' dtype, on the backbone's device.
        """
        states, _ = self._token_states(tokens, last_only=True)
        return states[:, -1]

    @torch.no_grad()
    def mean_states(self, tokens: Sequence[Sequence[int]]) -> Tensor:
        """Return the average of each row's tokens in the last layer, for one batch of token ids.

        Sentence models are trained for this average. Otherwise as :meth:`last_states`.
        """
        states, lengths = self._token_states(tokens)
        columns = torch.arange(states.shape[1], device=states.device)
        real = (columns < lengths[:, None])[..., None]  # (batch, longest, 1)
        total = torch.where(real, states.float(), 0.0).sum(1)
        return (total / lengths[:, None]).to(states.dtype)

    def _token_states(
        self, tokens: Sequence[Sequence[int]], *, last_only: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Run a batch of token ids: states (batch, longest, hidden), and lengths (batch,).

        ``last_only``: the state of the last token of each row, (batch, 1, hidden).
        """
        check_time()
        limit_threads_after_fork()
        shared = self._shared
        longest = max(len(row) for row in tokens)
        shortest = min(len(row) for row in tokens)
        # The value of the padding does not matter; every vocabulary has the id 0. The lengths
        # are a last column, so that a batch is one transfer.
        packed = torch.tensor([[*row, *[0] * (longest - len(row)), len(row)] for row in tokens])
        packed = packed.to(shared.device, non_blocking=True)  # (batch, longest + 1)
        ids, lengths = packed[:, :-1], packed[:, -1]
        positions = torch.arange(longest, device=shared.device)  # (longest,)
        mask = None
        # A causal model's token sees nothing to its right anyway, and attention is faster without
        # a mask.
        if shortest < longest and not shared.natively_causal:
            mask = positions < lengths[:, None]  # (batch, longest)
        module = shared.last_token(causal=False) if last_only else shared.plain
        # All rows end in the last column, or each in its own.
        where = nullcontext() if shortest == longest else read_at(lengths - 1)
        # A caller's autocast must not change the embeddings stored under this backbone's dtype.
        with torch.autocast(shared.device.type, enabled=False), where:
            output = module(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions[None],
                use_cache=False,
            )
        states = output.last_hidden_state
        if last_only:
            states = states[torch.arange(len(tokens), device=states.device), lengths - 1][:, None]
        return states, lengths

    def _check_lengths(self, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> None:
        """Raise for texts without tokens, with too many, and with one that has no embedding."""
        limit = self.max_positions
        rows = self._shared.word_embeddings.shape[0]
        beyond = self._shared.largest_token >= rows  # of special tokens only; see check_vocabulary
        for text, row in zip(texts, tokens, strict=True):
            if not row:
                raise DataError(f"the text {text!r} has no tokens; give a text that has some.")
            if beyond and max(row) >= rows:
                number = max(row)
                token = self.tokenizer.convert_ids_to_tokens(number)
                raise DataError(
                    f"the text {text[:60]!r} has the token {token!r}, number {number:,}, and the "
                    f"backbone {self.spec!r} has word embeddings for {rows:,} tokens; take the "
                    "token out of the text."
                )
            if limit is not None and len(row) > limit:
                raise DataError(
                    f"the text that begins {text[:60]!r} has {len(row)} tokens, but the backbone "
                    f"{self.spec!r} takes at most {limit}; shorten it (a shorter context_length), "
                    "or use a backbone with more positions."
                )

    def __repr__(self) -> str:
        return (
            f"Backbone({self.spec!r}, n_layers={self.n_layers}, hidden_size={self.hidden_size}, "
            f"device={str(self.device)!r}, dtype={str(self.dtype).removeprefix('torch.')!r})"
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Backbone) and self._shared.key == other._shared.key

    def __hash__(self) -> int:
        return hash(self._shared.key)

    def __copy__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Backbone:
        return self


def _rounded(quantisation: str | None) -> str:
    """Say how weights are rounded."""
    return "not quantised" if quantisation is None else f"quantised as {quantisation}"


def _check_texts(texts: Sequence[str]) -> None:
    """Raise for a single text and for entries that are not texts."""
    if isinstance(texts, str):
        raise DataError(f"texts is one text, {texts[:60]!r}; give a list of texts.")
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            raise DataError(f"texts[{number}] is {text!r}, not a text; give only str.")


def run_causally(
    shared: SharedBackbone,
    module: nn.Module,
    inputs_embeds: Tensor,
    past: Any,
    *,
    attention_mask: Tensor | None,
    positions: Tensor | None,
    use_cache: bool,
    last_only: bool = False,
) -> Hidden:
    """Run a causal module: the shared one, or a private shell around it."""
    limit_threads_after_fork()
    if inputs_embeds.ndim != 3 or inputs_embeds.shape[2] != shared.hidden_size:
        raise DataError(
            f"inputs_embeds has shape {tuple(inputs_embeds.shape)}; "
            f"it must be (batch, tokens, {shared.hidden_size})."
        )
    check_time()
    batch, tokens, _ = inputs_embeds.shape
    seen = 0 if past is None else past.get_seq_length()
    total = seen + tokens
    needed = total if positions is None else int(positions.max()) + 1
    if shared.max_positions is not None and needed > shared.max_positions:
        raise DataError(
            f"{needed} tokens are more than the backbone's {shared.max_positions} positions; use a "
            "shorter context_length or a longer token_length, so that there are fewer tokens, or a "
            "backbone with more positions."
        )
    if attention_mask is not None:
        if attention_mask.shape not in ((batch, total), (batch, tokens, total)):
            raise DataError(
                f"attention_mask has shape {tuple(attention_mask.shape)}; it must be "
                f"({batch}, {total}): one entry for each token, past ones included; or "
                f"({batch}, {tokens}, {total}), with an entry for each pair."
            )
        real = attention_mask.to(device=inputs_embeds.device, dtype=torch.bool)
        if real.ndim == 3:
            attention_mask = real[:, None]  # (batch, 1, tokens, past + tokens)
        else:
            # Attention weighs a masked token with exactly zero, which does not remove a NaN.
            inputs_embeds = inputs_embeds.masked_fill(~real[:, seen:, None], 0.0)
            attention_mask = _attention_pattern(real, seen)
        window = shared.sliding_window
        if attention_mask is not None and window is not None and total > window:
            raise DataError(
                f"{total} tokens, some of them masked, are more than the {window} that the "
                "backbone's sliding window spans; use a shorter context_length or a longer "
                "token_length."
            )
    # Given explicitly: OPT would otherwise count only the unmasked columns.
    if positions is None:
        positions = torch.arange(seen, total, device=inputs_embeds.device)[None]  # (1, tokens)
    cached = use_cache or past is not None
    with backbone_autocast(shared.device, shared.dtype):
        output = module(
            inputs_embeds=inputs_embeds.to(shared.dtype),
            attention_mask=attention_mask,
            position_ids=positions,
            past_key_values=past,
            use_cache=cached,
        )
    states = output.last_hidden_state  # (batch, tokens, hidden)
    states = (states[:, -1:] if last_only else states).float()
    return Hidden(states, output.past_key_values if cached else None)


def _attention_pattern(real: Tensor, seen: int) -> Tensor | None:
    """Return the tokens that each new token attends to; None for all up to itself.

    transformers would build the same pattern from a two-dimensional mask, except that a masked
    token after masked ones would attend to nothing. On CUDA that gives infinite gradients in the
    whole row, so here every token attends to itself.
    """
    if bool(real.all()):
        return None
    columns = torch.arange(real.shape[1], device=real.device)  # (past + tokens,)
    rows = columns[seen:, None]  # (tokens, 1)
    visible = (columns <= rows) & real[:, None, None, :]  # (batch, 1, tokens, past + tokens)
    return visible | (columns == rows)
