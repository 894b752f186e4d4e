"""The tokenizer that a GGUF file describes in its metadata."""

from collections.abc import Mapping, Sequence
from typing import Any

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
)
from transformers import PreTrainedTokenizerFast

from tsllm.errors import DataError

_CONTROL, _USER_DEFINED = 3, 4  # kinds of tokens that are never cut
_SPACE = "▁"  # how SentencePiece writes a space

# How texts are cut into words before the merges, from the published tokenizer.json of the models.
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_SPLITS = {"llama-bpe": _LLAMA3, "qwen2": _QWEN2, "tekken": _TEKKEN}
_SAME_AS = {
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "deepseek-r1-qwen": "qwen2",
    "default": "gpt-2",
}
#: Byte-level tokenizers that are built, by the name that the files give them.
_BYTE_LEVEL = ("gpt-2", "smollm", *_SPLITS)


def read_tokenizer(facts: Mapping[str, Any], name: str) -> PreTrainedTokenizerFast:
    """Build the tokenizer of a file's metadata.

    Parameters
    ----------
    facts : mapping
        The file's metadata.
    name : str
        The file's name, for errors.

    Raises
    ------
    DataError
        The file has no tokenizer, or one of a kind that tsllm does not build.
    """
    kind, tokens = facts.get("tokenizer.ggml.model"), facts.get("tokenizer.ggml.tokens")
    if kind in (None, "none", "no_vocab") or not tokens:
        raise DataError(
            f"the GGUF file {name} has no tokenizer; use a file that holds one, or the directory "
            "of the unquantised model"
        )
    if kind == "gpt2":
        backend, adds_bos = _byte_level(facts, tokens, name)
    elif kind == "llama":
        backend, adds_bos = _sentencepiece(facts, tokens), True
    else:
        raise DataError(
            f"the GGUF file {name} has a tokenizer of kind {kind!r}, which tsllm does not build; "
            "it builds 'gpt2' (byte-level) and 'llama' (SentencePiece) ones: use the directory of "
            "the unquantised model"
        )
    _add_whole_tokens(backend, tokens, facts.get("tokenizer.ggml.token_type") or [])
    special = {
        f"{role}_token": _token_of(facts, tokens, key)
        for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding"))
    }
    before = special["bos_token"] if facts.get("tokenizer.ggml.add_bos_token", adds_bos) else None
    after = special["eos_token"] if facts.get("tokenizer.ggml.add_eos_token", False) else None
    if before or after:
        ends = [token for token in (before, after) if token]
        single = " ".join(part for part in (before, "$A", after) if part)
        backend.post_processor = processors.TemplateProcessing(
            single=single,
            pair=f"{single} {single.replace('$A', '$B')}",
            special_tokens=[(token, tokens.index(token)) for token in ends],
        )
    known = {role: token for role, token in special.items() if token is not None}
    return PreTrainedTokenizerFast(tokenizer_object=backend, **known)


def _byte_level(
    facts: Mapping[str, Any], tokens: Sequence[str], name: str
) -> tuple[Tokenizer, bool]:
    """Build a byte-level tokenizer; also return whether texts begin with a token by default."""
    given = facts.get("tokenizer.ggml.pre", "default")
    cut = _SAME_AS.get(given, given)
    if cut not in _BYTE_LEVEL:
        raise DataError(
            f"the GGUF file {name} cuts texts as {given!r} does, which tsllm does not know; it "
            f"knows {', '.join(sorted({*_BYTE_LEVEL, *_SAME_AS}))}: use the directory of the "
            "unquantised model"
        )
    merges = [tuple(merge.split(" ", 1)) for merge in facts.get("tokenizer.ggml.merges") or []]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    llama3 = cut == "llama-bpe"
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=merges, ignore_merges=llama3))
    if cut == "qwen2":
        backend.normalizer = normalizers.NFC()
    before: list[Any] = []
    if cut in _SPLITS:
        before = [pre_tokenizers.Split(Regex(_SPLITS[cut]), behavior="isolated")]
    elif cut == "smollm":
        before = [pre_tokenizers.Digits(individual_digits=True)]
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut not in _SPLITS)
    backend.pre_tokenizer = pre_tokenizers.Sequence([*before, byte_level])
    backend.decoder = decoders.ByteLevel()
    return backend, llama3


def _sentencepiece(facts: Mapping[str, Any], tokens: Sequence[str]) -> Tokenizer:
    """Build a SentencePiece tokenizer of pairs, with unknown characters as bytes."""
    vocabulary = {token: number for number, token in enumerate(tokens)}
    scores = facts.get("tokenizer.ggml.scores") or [0.0] * len(tokens)
    backend = Tokenizer(
        models.BPE(
            vocab=vocabulary,
            merges=_merges_of(tokens, scores),
            unk_token=_token_of(facts, tokens, "unknown"),
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    spaces: list[Any] = [normalizers.Replace(" ", _SPACE)]
    if facts.get("tokenizer.ggml.add_space_prefix", True):
        spaces.insert(0, normalizers.Prepend(_SPACE))
    backend.normalizer = normalizers.Sequence(spaces)
    backend.decoder = decoders.Sequence(
        [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return backend


def _merges_of(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """List the pairs of tokens that make a token, best score first.

    SentencePiece files hold the score of each token in place of its merge.
    """
    numbers = {token: number for number, token in enumerate(tokens)}
    pairs = []
    for token, score in zip(tokens, scores, strict=True):
        for cut in range(1, len(token)):
            left, right = numbers.get(token[:cut]), numbers.get(token[cut:])
            if left is not None and right is not None:
                # Of pairs with one score the longer first token comes first.
                pairs.append((-score, -cut, left, right))
    return [(tokens[left], tokens[right]) for _, _, left, right in sorted(pairs)]


def _add_whole_tokens(backend: Tokenizer, tokens: Sequence[str], kinds: Sequence[int]) -> None:
    """Mark the tokens that stand for themselves, such as ``<|endoftext|>``."""
    for token, kind in zip(tokens, kinds):
        if kind in (_CONTROL, _USER_DEFINED) and token:
            special = kind == _CONTROL
            added = [AddedToken(token, normalized=False, special=special)]
            (backend.add_special_tokens if special else backend.add_tokens)(added)


def _token_of(facts: Mapping[str, Any], tokens: Sequence[str], role: str) -> str | None:
    """Return the token that has a role, such as "bos"; None where the file names none."""
    number = facts.get(f"tokenizer.ggml.{role}_token_id")
    return tokens[number] if number is not None and 0 <= number < len(tokens) else None
