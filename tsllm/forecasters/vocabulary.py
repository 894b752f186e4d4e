"""Readable words of a language model's vocabulary, and those that are nearest to given vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tsllm.backbone import Backbone


def readable_words(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> dict[str, int]:
    """List the tokens that a person can read, decoded.

    Left out: special and reserved tokens, rows of the embeddings that no token has, pieces that
    continue a word where the tokenizer marks them, and tokens without a letter or a digit. Of
    tokens that read alike ("up", " Up") the one of the lowest id is kept.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    vocab_size : int
        Rows of the word embeddings.

    Returns
    -------
    dict of str to int
        Word to token id.

    Examples
    --------
    >>> from tsllm import load_backbone
    >>> backbone = load_backbone("random:gpt2", device="cpu")
    >>> list(readable_words(backbone.tokenizer, backbone.vocab_size))[8:13]
    ['8', '9', 'A', 'B', 'C']
    """
    ids = [i for i in sorted(tokenizer.get_vocab().values()) if i < vocab_size]
    special = set(tokenizer.all_special_ids)
    tokens = tokenizer.convert_ids_to_tokens(ids)
    texts = tokenizer.batch_decode([[i] for i in ids], clean_up_tokenization_spaces=False)
    words: dict[str, int] = {}
    seen: set[str] = set()
    for number, token, text in zip(ids, tokens, texts):
        word = text.strip()
        reserved = token.startswith(("[", "<", "##")) and len(token) > 2
        if number in special or reserved or not _readable(word) or word.casefold() in seen:
            continue
        seen.add(word.casefold())
        words[word] = number
    return words


def nearest_words(
    vectors: Tensor, backbone: Backbone, top: int
) -> tuple[list[list[str]], list[list[float]]]:
    """Find the words whose embeddings are closest to vectors by cosine similarity.

    Parameters
    ----------
    vectors : Tensor
        ``(vectors, width)``.
    backbone : Backbone
        Whose words.
    top : int
        Words to give for each vector; fewer where the vocabulary has fewer that can be read.

    Returns
    -------
    words : list of list of str
        For each vector, the closest first.
    similarities : list of list of float
    """
    known = readable_words(backbone.tokenizer, backbone.vocab_size)
    ids = torch.tensor(list(known.values()), device=vectors.device)
    rows = functional.normalize(backbone.word_embeddings[ids].float(), dim=-1)  # (words, width)
    cosines = functional.normalize(vectors.float(), dim=-1) @ rows.T  # (vectors, words)
    similarities, order = cosines.topk(min(top, len(known)), dim=-1)  # (vectors, top)
    texts = list(known)
    return [[texts[i] for i in row] for row in order.tolist()], similarities.tolist()


def _readable(word: str) -> bool:
    """Tell whether a text has a letter or a digit and nothing that does not print."""
    return word.isprintable() and "\ufffd" not in word and any(c.isalnum() for c in word)
