"""Pages in a real browser: they fit, they sort, they can be read in the dark, they ask for nothing.

Without Chromium these tests are skipped.
"""

import browser
import numpy as np
import pandas as pd
import pytest

from tsllm.pages.pictures import Picture, axes_of
from tsllm.reports import Page, report_forecast
from tsllm.reports.forecast import Table

pytestmark = [browser.needs_browser, pytest.mark.long]

#: The least contrast of text with what is behind it, by WCAG 2: of every element with own text, its
#: colour and that of the nearest ground.
CONTRASTS = """
(() => {
  const channels = (colour) => colour.match(/[\\d.]+/g).map(Number);
  const light = (colour) => channels(colour).slice(0, 3)
    .map((c) => c / 255)
    .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!own || !element.getClientRects().length || element.tagName === "SCRIPT") continue;
    const style = getComputedStyle(element);
    const inPicture = element.closest("svg") !== null;
    let ground = element;
    const clear = (one) => (channels(getComputedStyle(one).backgroundColor)[3] ?? 1) === 0;
    while (clear(ground) && ground.parentElement) ground = ground.parentElement;
    const pair = [inPicture ? style.fill : style.color, getComputedStyle(ground).backgroundColor];
    const [low, high] = pair.map(light).sort((a, b) => a - b);
    found.push({ text: element.textContent.slice(0, 30), ratio: (high + 0.05) / (low + 0.05) });
  }
  return found.sort((a, b) => a.ratio - b.ratio).slice(0, 3);
})()
"""


def panel_page():
    """A panel with long and hostile names, more series than are drawn, and wide tables."""
    days = pd.date_range("2024-01-01", periods=60, freq="D")
    names = ["<script>alert(1)</script>", "a-name-without-any-space-" * 5]
    names += [f"shop {n}" for n in range(14)]
    rng = np.random.default_rng(0)
    past = pd.concat(
        pd.DataFrame({"series_id": n, "timestamp": days, "sales": 10.0 + rng.poisson(k + 1, 60)})
        for k, n in enumerate(names)
    )
    ahead = pd.concat(
        pd.DataFrame(
            {
                "series_id": name,
                "timestamp": days[:7] + pd.Timedelta("60D"),
                "forecast": 10.0 + k,
                "q0.1": 8.0 + k,
                "q0.9": 13.0 + k,
            }
        )
        for k, name in enumerate(names)
    )
    page = report_forecast(past, ahead, settings={"data": "/a/long/path" * 20})
    wide = pd.DataFrame({f"a long name of a column {n}": [n, 9 - n, 5] for n in range(30)})
    picture = Picture(lambda size: axes_of(size).figure, "empty axes", "A caption.")
    return Page(
        page.title,
        page.verdict,
        page.details,
        [picture, *page.pictures],
        page.pictures_note,
        [*page.tables, Table("Wide", wide)],
        ["a note"],
        page.settings,
    )


@pytest.fixture(scope="module")
def shown(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "report.html"
    panel_page().save(path)
    with browser.running() as running:
        yield running.open(path)


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_overflows(shown, width):
    shown.resize(width)
    assert shown.run("document.documentElement.scrollWidth") <= width
    sizes = shown.run(
        "[...document.querySelectorAll('.scroll')].map((e) => [e.scrollWidth, e.clientWidth])"
    )
    assert any(inside > outside for inside, outside in sizes)  # wide tables scroll in their box
    right = shown.run(
        "Math.max(...[...document.querySelectorAll('figure, p, h1, h2, svg, .scroll')]"
        ".map((e) => e.getBoundingClientRect().right))"
    )
    assert right <= width


def test_the_page_asks_for_nothing_and_complains_of_nothing(shown):
    shown.resize(1280)
    assert [one.partition(":")[0] for one in shown.requests] == ["file"]
    assert shown.complaints == []
    assert shown.run("document.title") == "Forecast"


def test_foreign_scripts_do_not_run(shown):
    ran = (
        "(() => { const s = document.createElement('script'); s.textContent = 'window.hit = 1';"
        " document.body.append(s); s.remove(); return window.hit === undefined; })()"
    )
    assert shown.run(ran)
    shown.complaints.clear()  # the policy reports it


def test_a_click_sorts_by_number_and_a_second_one_turns_it_around(shown):
    column = (
        "[...document.querySelectorAll('section:nth-of-type(1) tbody tr')]"
        ".map((row) => row.cells[3].textContent)"
    )
    click = "document.querySelectorAll('section:nth-of-type(1) th button')[3].click()"
    before = [float(one) for one in shown.run(column)]
    assert len(before) == 16
    shown.run(click)
    assert [float(one) for one in shown.run(column)] == sorted(before)
    shown.run(click)
    assert [float(one) for one in shown.run(column)] == sorted(before, reverse=True)
    sorts = "[...document.querySelectorAll('section:nth-of-type(1) th')].map((h) => h.ariaSort)"
    assert shown.run(sorts) == [None, None, None, "descending", None]


@pytest.mark.parametrize("mode", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(shown, mode):
    shown.resize(1280)
    shown.set_mode(mode)
    dark = shown.run("getComputedStyle(document.body).backgroundColor") == "rgb(26, 26, 26)"
    assert dark == (mode == "dark")
    assert min(one["ratio"] for one in shown.run(CONTRASTS)) >= 4.5


def test_letters_of_pictures_are_large_enough_on_a_phone(shown):
    shown.resize(390)
    heights = shown.run(
        "[...document.querySelectorAll('svg text')].filter((t) => t.checkVisibility())"
        ".map((t) => [parseFloat(getComputedStyle(t).fontSize), t.getScreenCTM()])"
        ".map(([size, m]) => size * Math.hypot(m.a, m.b))"
    )
    assert min(heights) >= 9


def test_paper_is_light_and_shows_whole_tables(shown):
    shown.resize(1280)
    shown.set_mode("dark", media="print")
    ground = shown.run("getComputedStyle(document.documentElement).getPropertyValue('--ground')")
    hidden = shown.run(
        "[...document.querySelectorAll('.scroll')].filter("
        "(e) => getComputedStyle(e).maxHeight !== 'none').length"
    )
    shown.set_mode("light")
    assert (ground.strip(), hidden) == ("#ffffff", 0)
