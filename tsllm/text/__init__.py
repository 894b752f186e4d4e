"""Texts beside series as numbers: split, embedded once, and reduced to a few features."""

from tsllm.text.encoder import (
    BAG_OF_WORDS,
    BagOfWords,
    LanguageModelEncoder,
    TextEncoder,
    TextVectors,
    check_text_backbone,
    embed_ahead,
    make_encoder,
    restore_encoder,
)
from tsllm.text.reduction import TextReduction
from tsllm.text.sentences import sentences_that_fit, split_sentences

__all__ = [
    "BAG_OF_WORDS",
    "BagOfWords",
    "LanguageModelEncoder",
    "TextEncoder",
    "TextReduction",
    "TextVectors",
    "check_text_backbone",
    "embed_ahead",
    "make_encoder",
    "restore_encoder",
    "sentences_that_fit",
    "split_sentences",
]
