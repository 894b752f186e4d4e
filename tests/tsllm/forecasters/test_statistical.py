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
        choose_ets_form(VALUES, 12)


def test_a_known_form_gives_the_forecast_of_the_chosen_one():
    form = choose_ets_form(VALUES, 12)
    chosen = fit_and_forecast("auto_ets", VALUES, 6, 12)
    np.testing.assert_allclose(fit_and_forecast("auto_ets", VALUES, 6, 12, form=form), chosen)
