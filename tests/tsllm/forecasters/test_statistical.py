"""Models of statsforecast: a fit that fails is one thing, a library that is broken another."""

import sys

import numpy as np
import pytest

from tsllm.forecasters.statistical import MODELS, choose_ets_form, fit_and_forecast

VALUES = 10 + np.sin(np.arange(48) * np.pi / 6) + np.arange(48) / 20


@pytest.mark.parametrize("name", MODELS)
def test_a_library_that_cannot_be_imported_is_no_failed_fit(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "statsforecast.models", None)
    with pytest.raises(ImportError):
        fit_and_forecast(name, VALUES, 3, 12)
    with pytest.raises(ImportError):
        choose_ets_form(VALUES, 12, 48)


def test_a_known_form_gives_the_forecast_of_the_chosen_one():
    form = choose_ets_form(VALUES, 12, 48)
    chosen = fit_and_forecast("auto_ets", VALUES, 6, 12)
    np.testing.assert_allclose(fit_and_forecast("auto_ets", VALUES, 6, 12, form=form), chosen)


def test_a_form_that_does_not_fit_is_chosen_anew():
    chosen = fit_and_forecast("auto_ets", VALUES - 10, 6, 12)
    other = fit_and_forecast("auto_ets", VALUES - 10, 6, 12, form="MNMN")  # needs positive values
    np.testing.assert_array_equal(other, chosen)


def test_a_start_without_two_seasons_has_no_form_where_later_histories_have_them():
    start = VALUES[:20]
    assert choose_ets_form(start, 12, 48) is None
    assert choose_ets_form(start, 12, 23)[2] == "N"
    assert choose_ets_form(VALUES, 12, 48)[2] != "N"
    assert choose_ets_form(np.full(20, np.nan), 12, 48) is None
