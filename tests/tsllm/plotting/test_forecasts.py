"""Pictures of forecasts and backtests: what is drawn, named and marked, and what is refused."""

import io

import numpy as np
import pandas as pd
import pytest
from matplotlib.dates import num2date

from tsllm import backtest
from tsllm.errors import DataError
from tsllm.plotting.forecasts import draw_losses, plot_forecast, plot_panel
from tsllm.plotting.style import text_size

pytest.importorskip("matplotlib")
DAYS = pd.date_range("2024-01-01", periods=30, freq="D")


def shops(count=2, steps=30, **columns):
    frames = [
        pd.DataFrame(
            {"series_id": f"s{i}", "timestamp": DAYS[:steps], "sales": np.arange(steps) + i}
        )
        for i in range(count)
    ]
    return pd.concat(frames, ignore_index=True).assign(**columns)


def ahead(names, variables=(), steps=4, quantiles=(0.1, 0.25, 0.5, 0.75, 0.9)):
    days = pd.date_range("2024-01-31", periods=steps, freq="D")
    frames = []
    for name in names:
        for variable in variables or [None]:
            part = pd.DataFrame({"series_id": name, "timestamp": days, "forecast": 30.0})
            part = part.assign(**{f"q{q:g}": 30.0 + 10 * (q - 0.5) for q in quantiles})
            if variable is not None:
                part.insert(2, "variable", variable)
            frames.append(part)
    return pd.concat(frames, ignore_index=True)


def drawn(ax):
    return {line.get_label(): line for line in ax.lines}


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def render(figure):
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return file.getvalue()


def test_one_series_has_its_names_and_bands_and_the_legend_lies_outside_the_data():
    ax = plot_forecast(shops(), ahead(["s0", "s1"]), series_id="s1")
    assert ax.get_title() == "s1" and ax.get_ylabel() == "sales"
    np.testing.assert_array_equal(drawn(ax)["history"].get_ydata(), np.arange(30) + 1)
    assert drawn(ax)["forecast"].get_ydata().tolist() == [30.0] * 4
    assert legend(ax.figure) == ["history", "forecast", "80% interval", "50% interval"]
    render(ax.figure)
    box = ax.figure.legends[0].get_window_extent()
    assert box.y1 <= ax.get_window_extent().y0
    # In black and white the outer band is hatched and the inner one is darker.
    outer, inner = ax.collections
    assert outer.get_hatch() and not inner.get_hatch()


def test_promotions_of_the_history_and_of_the_future_are_marked():
    promo = np.tile(np.arange(30) == 3, 2).astype(int)
    history = shops(promo=promo, price=np.tile(np.linspace(1, 2, 30), 2))
    future = ahead(["s0"])[["series_id", "timestamp"]].assign(promo=[0, 1, 0, 0], price=1.0)
    ax = plot_forecast(history, ahead(["s0", "s1"]), future=future)
    when = [num2date(day).day for day in drawn(ax)["promo"].get_xdata(orig=False)]
    assert when == [4, 1]  # of January, of February
    assert max(drawn(ax)["promo"].get_ydata()) < 0  # below the data
    assert "price" not in drawn(ax)
    assert "promo" not in drawn(plot_forecast(history, ahead(["s0"]), marks=[]))
    with pytest.raises(DataError, match="marks names 'sale', which history has not"):
        plot_forecast(history, ahead(["s0"]), marks=["sale"])


def test_a_panel_is_small_multiples_and_says_how_many_more_there_are():
    history = shops(4, stock=1.0)
    table = ahead([f"s{i}" for i in range(4)], ["sales", "stock"])
    figure = plot_panel(history, table, most=5)
    titles = [ax.get_title() for ax in figure.axes]
    assert titles == ["s0: sales", "s0: stock", "s1: sales", "s1: stock", "s2: sales"]
    assert figure.legends[0].get_title().get_text() == "3 more not drawn: s2, s3"
    chosen = plot_panel(history, table, series_ids=["s3"], variables=["stock"])
    assert [ax.get_title() for ax in chosen.axes] == ["s3: stock"]
    with pytest.raises(DataError, match="series_ids='x' is not among the forecasts"):
        plot_panel(history, table, series_ids=["x"])
    with pytest.raises(DataError, match="variables='price'"):
        plot_panel(history, table, variables=["price"])


@pytest.mark.parametrize("count", [1, 3, 6])
def test_letters_are_nine_pixels_high_on_a_phone(count):
    figure = plot_panel(shops(count), ahead([f"s{i}" for i in range(count)]))
    inches = figure.get_size_inches()[0]
    sizes = [text_size(ax) for ax in figure.axes]
    sizes += [label.get_fontsize() for ax in figure.axes for label in ax.get_xticklabels()]
    sizes += [text.get_fontsize() for text in figure.legends[0].get_texts()]
    assert min(sizes) / 72 / inches * 390 >= 9


def test_tables_with_the_names_of_their_user_are_drawn():
    history = shops().rename(columns={"series_id": "shop", "timestamp": "day"})
    history["day"] = history["day"].astype(str)  # as a CSV file has them
    table = ahead(["s0", "s1"]).rename(columns={"series_id": "shop", "timestamp": "day"})
    figure = plot_panel(history, table)
    assert [ax.get_ylabel() for ax in figure.axes] == ["sales", "sales"]
    assert plot_panel(shops(), table).axes[0].get_title() == "s0"  # of read_long
    with pytest.raises(DataError, match="history has no column 'day'"):
        plot_panel(history.drop(columns="day"), table)


@pytest.mark.parametrize("kind", ["period", "zone", "integer"])
def test_every_kind_of_time_is_drawn(kind):
    history, table = shops(), ahead(["s0"])
    for frame in (history, table):
        times = frame["timestamp"]
        if kind == "period":
            frame["timestamp"] = times.dt.to_period("D")
        elif kind == "zone":
            frame["timestamp"] = times.dt.tz_localize("Europe/Berlin")
        else:
            frame["timestamp"] = (times - DAYS[0]).dt.days
    render(plot_forecast(history, table).figure)


def test_a_new_series_without_history_is_drawn():
    assert plot_panel(shops(1), ahead(["s0", "new"])).axes[1].get_title() == "new"


@pytest.mark.parametrize("epochs", [1, 2, 4, 25])
def test_epochs_have_whole_ticks(epochs):
    ax = draw_losses([{"train_loss": 1.0, "validation_loss": 0.5}] * epochs, best_epoch=1)
    render(ax.figure)
    ticks = ax.get_xticks()
    assert (ticks == np.round(ticks)).all()


def test_a_backtest_is_drawn_against_what_came():
    y = shops(3).set_index(["series_id", "timestamp"])
    report = backtest({}, y, horizons=3, test_size=8, baselines=["seasonal_naive"], season=1)
    figure = report.plot(windows=2, most=2)
    assert [ax.get_title() for ax in figure.axes] == ["s0", "s1"]
    assert figure.legends[0].get_title().get_text() == "1 more not drawn: s2"
    ax = figure.axes[0]
    assert drawn(ax)["observed"].get_ydata()[-1] == 29
    points = [line.get_ydata().tolist() for line in ax.lines if line.get_marker() == "o"]
    assert points == [[23.0] * 3, [26.0] * 3]  # the last windows that do not overlap
    assert "80% interval" in legend(figure)
    assert len(report.plot(series=["s2"]).axes) == 1
    for wrong, words in (
        ({"methods": ["x"]}, "methods='x'"),
        ({"series": ["x"]}, "series='x'"),
        ({"windows": 0}, "windows must be at least 1"),
    ):
        with pytest.raises(DataError, match=words):
            report.plot(**wrong)
