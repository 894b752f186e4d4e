"""sktime's own suite, whole: every check of every forecaster."""

from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from tsllm import AutoTimesForecaster


@parametrize_with_checks([AutoTimesForecaster], obj_varname="estimator", check_varname="check")
def test_sktime_check(estimator, check):
    check_estimator(estimator, tests_to_run=check, raise_exceptions=True, verbose=False)


def test_no_check_of_sktime_is_skipped_by_our_tags():
    assert not AutoTimesForecaster.get_class_tag("tests:skip_by_name")
    assert not AutoTimesForecaster.get_class_tag("tests:skip_all")
