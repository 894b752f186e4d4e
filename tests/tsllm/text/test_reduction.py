"""The reduction: principal components of the training rows."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn.decomposition import PCA

from tsllm.text import TextReduction, TextVectors


@pytest.fixture
def texts():
    random = np.random.default_rng(0)
    vectors = (random.normal(size=(30, 8)) * np.arange(1, 9)).astype(np.float32)
    return TextVectors(vectors, random.integers(-1, 30, 100))


def test_features_are_principal_components_of_the_rows_in_units_of_the_first(texts):
    reduction = TextReduction.learn(texts, 3)
    rows = texts.rows(texts.present)
    expected = PCA(3).fit_transform(rows.dense().astype(float))
    expected /= expected[:, 0].std()
    found = reduction.features(rows)
    for mine, theirs in zip(found.T, expected.T, strict=True):
        np.testing.assert_allclose(mine * np.sign(mine @ theirs), theirs, atol=1e-6)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)


def test_no_text_has_no_features(texts):
    features = TextReduction.learn(texts, 4).features(texts)
    assert not features[~texts.present].any()
    assert features[texts.present].all()


def test_a_smaller_reduction_is_the_beginning_of_a_larger_one(texts):
    large, small = TextReduction.learn(texts, 6), TextReduction.learn(texts, 2)
    np.testing.assert_allclose(large.features(texts)[:, :2], small.features(texts), atol=1e-9)


def test_a_sparse_matrix_is_reduced_alike(texts):
    sparse = TextVectors(csr_matrix(texts.vectors), texts.numbers)
    reduction = TextReduction.learn(sparse, 3)
    np.testing.assert_allclose(
        reduction.features(sparse), TextReduction.learn(texts, 3).features(texts), atol=1e-9
    )


def test_rows_that_are_left_out_change_nothing(texts):
    training = texts.rows(slice(0, 60))
    changed = TextVectors(texts.vectors.copy(), texts.numbers)
    unseen = np.setdiff1d(np.arange(30), training.numbers)
    changed.vectors[unseen] += 100
    np.testing.assert_array_equal(
        TextReduction.learn(training, 3).components,
        TextReduction.learn(changed.rows(slice(0, 60)), 3).components,
    )


@pytest.mark.parametrize("numbers", [[], [-1, -1], [0, 0], [0, 1, -1]])
def test_there_are_fewer_components_than_texts(numbers):
    vectors = np.random.default_rng(0).normal(size=(2, 8)).astype(np.float32)
    texts = TextVectors(vectors, np.array(numbers, dtype=int))
    reduction = TextReduction.learn(texts, 4)
    assert reduction.size == max(0, len(set(numbers) - {-1}) - 1)
    assert np.isfinite(reduction.features(texts)).all()


def test_a_state_builds_the_same_reduction(texts):
    reduction = TextReduction.learn(texts, 3)
    again = TextReduction.from_state(reduction.to_state())
    np.testing.assert_array_equal(again.features(texts), reduction.features(texts))
