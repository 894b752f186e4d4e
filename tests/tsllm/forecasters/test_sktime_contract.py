"""sktime's own suite, whole: every check of every forecaster."""

import pytest
from sktime.utils.estimator_checks import check_estimator, parametrize_with_checks

from tsllm.forecasters import (
    METHODS,
    DLinearForecaster,
    PatchTSTForecaster,
    S2IPForecaster,
    TextContext,
    TimeCMAForecaster,
    ZeroShotForecaster,
)

FORECASTERS = [*METHODS.values(), TextContext]
#: They train and forecast by the code of the others: their checks run with `make slow`.
ALIKE = [
    *(DLinearForecaster, PatchTSTForecaster, ZeroShotForecaster),
    *(TimeCMAForecaster, S2IPForecaster, TextContext),
]


@parametrize_with_checks(
    [one for one in FORECASTERS if one not in ALIKE], obj_varname="estimator", check_varname="check"
)
def test_sktime_check(estimator, check):
    check_estimator(estimator, tests_to_run=check, raise_exceptions=True, verbose=False)


@pytest.mark.slow
@parametrize_with_checks(ALIKE, obj_varname="estimator", check_varname="check")
def test_sktime_check_of_a_method_alike(estimator, check):
    check_estimator(estimator, tests_to_run=check, raise_exceptions=True, verbose=False)


@pytest.mark.parametrize("method", FORECASTERS)
def test_no_check_of_sktime_is_skipped_by_our_tags(method):
    assert not method.get_class_tag("tests:skip_by_name")
    assert not method.get_class_tag("tests:skip_all")
