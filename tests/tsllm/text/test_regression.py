import numpy as np
import pytest

from tsllm.text.regression import TextRegression

GROUPS = [[0], [1, 2]]


def rows(n, width, *, noise=0.1, seed=0):
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(n, width))
    weights = rng.normal(size=(width, 3))
    return vectors, vectors @ weights + 5 + noise * rng.normal(size=(n, 3))


def test_each_row_is_predicted_as_if_it_had_not_been_there():
    vectors, targets = rows(30, 3)
    regression, without = TextRegression.fit(vectors, targets, GROUPS)
    (_, penalty, _), *_ = regression.chosen
    centred = vectors - vectors.mean(axis=0)
    variance = (centred**2).sum() / 30
    for row in (0, 17, 29):
        rest = np.arange(30) != row
        # the penalty is on the weights, not on the intercept, around the centre of all rows
        design = np.column_stack([np.ones(29), centred[rest]])
        square = design.T @ design + np.diag([0, 1, 1, 1]) * penalty * variance
        weights = np.linalg.solve(square, design.T @ targets[rest, 0])
        assert without[row, 0] == pytest.approx(weights @ [1, *centred[row]], abs=1e-10)


def test_vectors_that_determine_the_quantities_are_used_and_others_are_not():
    vectors, targets = rows(60, 5)
    targets[:, 1:] = np.random.default_rng(1).normal(size=(60, 2))
    regression, _ = TextRegression.fit(vectors, targets, GROUPS)
    (size, _, left), (_, _, other_left) = regression.chosen
    assert (size, left < 0.01, other_left > 0.95) == (5, True, True)
    found = regression.predict(vectors)
    np.testing.assert_allclose(found[:, 0], targets[:, 0], atol=0.5)
    assert found[:, 1:].std(axis=0).max() < 0.2  # of targets with a deviation of 1


@pytest.mark.parametrize("vectors", [np.zeros((9, 0)), np.ones((9, 4))])
def test_without_any_difference_between_texts_the_mean_is_left(vectors):
    _, targets = rows(9, 2)
    regression, without = TextRegression.fit(vectors, targets, GROUPS)
    np.testing.assert_allclose(regression.predict(vectors[:1]), targets.mean(axis=0)[None])
    np.testing.assert_allclose(without[3], np.delete(targets, 3, axis=0).mean(axis=0))


def test_a_state_restores_the_regression():
    vectors, targets = rows(20, 3)
    regression, _ = TextRegression.fit(vectors, targets, GROUPS)
    again = TextRegression.from_state(regression.to_state())
    np.testing.assert_array_equal(again.predict(vectors), regression.predict(vectors))
