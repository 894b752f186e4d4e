"""Text encoders: each sentence once, averages, no text, any batch, any process."""

import copy
import pickle

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from tsllm.errors import BackboneMismatchError, DataError, ModelFormatError
from tsllm.text import BagOfWords, LanguageModelEncoder, embed_ahead, make_encoder
from tsllm.text.encoder import pooling_of, restore_encoder

BERT = "random:bert?hidden=16&layers=1&heads=2&positions=32"


@pytest.fixture
def encoder(bert, store):
    return LanguageModelEncoder(bert, "mean", store)


def test_a_text_is_the_mean_of_its_sentences(encoder, store, bert):
    found = encoder.encode(["Rain. Wind. Rain.", "Wind."])
    rain, wind = store.encode(["Rain.", "Wind."], bert, pooling="mean").numpy()
    np.testing.assert_allclose(found.vectors, [(2 * rain + wind) / 3, wind], atol=1e-6)


def test_each_sentence_is_computed_once_and_then_read(encoder, computed):
    encoder.encode(["Rain. Wind.", "Wind. Snow.", "Rain. Wind."])
    assert len(computed) == 3
    encoder.encode(["Snow. Rain."])
    assert len(computed) == 3
    stats = encoder.summary()["embedding_store"]
    assert (stats["hits"], stats["misses"]) == (2, 3)


@pytest.mark.parametrize("missing", [None, "", "  \n", "\x00"])
def test_no_text_is_no_error_and_has_no_vector(encoder, missing):
    found = encoder.encode([missing, "Rain.", missing])
    assert found.numbers.tolist() == [-1, 0, -1]
    assert found.vectors.shape == (1, 16)
    assert not found.dense()[[0, 2]].any()


def test_nothing_but_missing_texts(encoder):
    found = encoder.encode([None, " "])
    assert found.vectors.shape == (0, 16)
    assert not found.present.any()


def test_batch_equals_single(encoder, tmp_path, bert):
    from tsllm.embeddings import EmbeddingStore

    texts = ["Rain.", "Wind from the north east. Calm.", "雪。", "🌧️", "x" * 100]
    together = encoder.encode(texts).dense()
    for number, text in enumerate(texts):
        alone = LanguageModelEncoder(bert, "mean", EmbeddingStore(tmp_path / str(number)))
        np.testing.assert_allclose(alone.encode([text]).dense()[0], together[number], atol=1e-5)


def test_the_pooling_fits_the_backbone(bert, tiny_backbone):
    assert pooling_of(bert) == "mean"
    assert pooling_of(tiny_backbone) == "last_token"


def test_a_bag_of_words_is_that_of_scikit_learn():
    texts = ["rain and wind wind", "wind 15", "rain and snow 15", "snow", "rain and wind wind"]
    bag = BagOfWords.learn([*texts, None])
    oracle = TfidfVectorizer(token_pattern=r"\w+", sublinear_tf=True, min_df=2)
    expected = oracle.fit_transform(texts).toarray()
    assert bag.words == oracle.get_feature_names_out().tolist()
    np.testing.assert_allclose(bag.encode(texts).dense(), expected, atol=1e-6)


def test_a_bag_of_words_reads_scripts_without_spaces():
    assert BagOfWords.learn(["今天雨", "明天雨"]).words == ["天", "雨"]


def test_a_bag_without_words():
    for texts in ([], [None], ["!!", "??"]):
        found = BagOfWords.learn(texts).encode(["rain", None])
        assert found.dense().shape == (2, 0)
        assert found.present.tolist() == [True, False]


@pytest.mark.parametrize("spec", ["tf-idf", "TFIDF", "bag of words", "bag_of_words"])
def test_other_spellings_of_the_bag_of_words_are_no_language_model(spec, store):
    told = rf"text_backbone='{spec}' is no language model: did you mean 'tfidf'\?"
    state = make_encoder(BERT, store=store).to_state()
    for read in (make_encoder, lambda name: embed_ahead([], name)):
        with pytest.raises(DataError, match=told):
            read(spec)
    with pytest.raises(DataError, match=told):
        restore_encoder(state, spec)


@pytest.mark.parametrize("spec", [BERT, "tfidf"])
def test_a_restored_encoder_is_the_same(spec, store):
    texts = ["Rain. Wind.", "Wind. Rain.", None]
    encoder = make_encoder(spec, texts, store=store)
    again = restore_encoder(encoder.to_state(), spec, store=store)
    for other in (again, copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        np.testing.assert_array_equal(other.encode(texts).dense(), encoder.encode(texts).dense())


def test_other_weights_than_those_of_the_fit_are_refused(store):
    state = make_encoder(BERT, store=store).to_state()
    with pytest.raises(BackboneMismatchError, match="trained with the backbone"):
        restore_encoder(state, f"{BERT}&seed=1", store=store)
    with pytest.raises(DataError, match="text_backbone"):
        restore_encoder(state, "tfidf")


@pytest.mark.parametrize(
    "state", [{}, {"kind": "tfidf", "words": ["a"], "idf": np.ones(2)}, {"kind": "x"}]
)
def test_a_damaged_state_is_refused(state):
    with pytest.raises(ModelFormatError):
        restore_encoder(state, BERT)
