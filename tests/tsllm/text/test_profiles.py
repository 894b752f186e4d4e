import numpy as np
import pytest

from tsllm.text.profiles import Profile, posterior

MONTHLY = Profile(12)
COVARIANCE = np.diag(np.linspace(0.5, 2.0, MONTHLY.n_terms))


def expected(*, level=3.0, spread=0.1):
    return np.array([level, 0.2, *np.linspace(-1, 1, MONTHLY.n_terms - 2), np.log(spread)])


@pytest.mark.parametrize("season", [1, 4, 7, 12, 24, 52])
def test_the_terms_repeat_after_a_season_but_for_the_trend(season):
    form = Profile(season)
    terms = form.design(np.arange(-5, 5))
    later = form.design(np.arange(-5, 5) + season)
    np.testing.assert_allclose(np.delete(later, 1, axis=1), np.delete(terms, 1, axis=1), atol=1e-9)
    assert np.linalg.matrix_rank(form.design(np.arange(form.needed))) == form.n_terms
    assert max(form.counts) < form.window
    assert sorted(k for group in form.groups for k in group) == list(range(form.n_terms + 1))


def test_a_profile_is_found_again_and_a_series_with_too_few_values_has_none():
    steps = np.arange(-35, 1)
    exact = MONTHLY.design(steps) @ expected()[:-1]
    noise = np.random.default_rng(0).normal(0, 0.1, 36)
    few = np.where(steps > -23, exact, np.nan)
    found = MONTHLY.fit(np.stack([exact, exact + noise, few]))
    np.testing.assert_allclose(found[0, :-1], expected()[:-1], atol=1e-9)
    assert np.exp(found[1, -1]) == pytest.approx(0.1, rel=0.3)
    assert np.isnan(found[2]).all()


def test_without_observations_the_forecast_is_the_expected_profile():
    ahead = np.arange(1, 4)
    mean, deviation = posterior(MONTHLY, expected(), COVARIANCE, *np.empty((2, 0)), ahead)
    terms = MONTHLY.design(ahead)
    np.testing.assert_allclose(mean, terms @ expected()[:-1])
    np.testing.assert_allclose(deviation**2, np.diag(terms @ COVARIANCE @ terms.T) + 0.01)


def test_observations_change_the_profile_as_the_normal_distribution_says():
    seen_steps, ahead = np.array([-2.0, 0.0]), np.array([5.0])
    seen = np.array([9.0, 1.0])
    mean, deviation = posterior(MONTHLY, expected(), COVARIANCE, seen_steps, seen, ahead)
    # the conditional distribution of the joint one of both observations and the value ahead
    terms = MONTHLY.design(np.concatenate([seen_steps, ahead]))
    joint = terms @ COVARIANCE @ terms.T + 0.01 * np.eye(3)
    middle = terms @ expected()[:-1]
    share = joint[2, :2] @ np.linalg.inv(joint[:2, :2])
    assert mean[0] == pytest.approx(middle[2] + share @ (seen - middle[:2]))
    assert deviation[0] ** 2 == pytest.approx(joint[2, 2] - share @ joint[:2, 2])


def test_many_exact_observations_leave_their_own_regression():
    steps = np.arange(-200, 1)
    own = MONTHLY.design(steps) @ (expected()[:-1] + 5)
    ahead = np.arange(1, 13)
    mean, _ = posterior(MONTHLY, expected(spread=1e-3), COVARIANCE, steps, own, ahead)
    np.testing.assert_allclose(mean, MONTHLY.design(ahead) @ (expected()[:-1] + 5), atol=1e-3)
