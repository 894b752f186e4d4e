"""sktime's own suite, whole: every check of every forecaster."""

import pytest
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from tsllm.forecasters import METHODS, TextContext

FORECASTERS = [*METHODS.values(), TextContext]


@parametrize_with_checks(FORECASTERS, obj_varname="estimator", check_varname="check")
def test_sktime_check(estimator, check):
    check_estimator(estimator, tests_to_run=check, raise_exceptions=True, verbose=False)


@pytest.mark.parametrize("method", FORECASTERS)
def test_no_check_of_sktime_is_skipped_by_our_tags(method):
    assert not method.get_class_tag("tests:skip_by_name")
    assert not method.get_class_tag("tests:skip_all")
