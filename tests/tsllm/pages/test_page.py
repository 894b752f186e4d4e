"""Pages of HTML: one file, escaped, the same each time, and of bounded size."""

import re

import numpy as np
import pandas as pd
import pytest
from html_pages import Parsed

from tsllm.errors import DataError
from tsllm.pages.cells import cell
from tsllm.pages.page import MAX_ROWS, Page, Table
from tsllm.pages.pictures import Picture, axes_of, contrast, dark
from tsllm.plotting.style import COLOURS

NASTY = '<script>alert("x")</script>&$a_b$'


def line(size):
    """Draw a line with a name of a user, an area and a hatch."""
    ax = axes_of(size)
    ax.plot([0, 1], [1, 3], label=NASTY)
    ax.fill_between([0, 1], [0, 2], [2, 4], hatch="///", label="band")
    ax.set_title(NASTY)
    ax.legend()
    return ax.figure


def heat(size):
    ax = axes_of(size)
    ax.imshow(np.eye(3))
    ax.text(0, 0, "white", color="white")
    return ax.figure


def page(**changed):
    frame = pd.DataFrame({"series": [NASTY, "b"], "value": [1234.5, np.nan], NASTY: ["x", None]})
    parts = {
        "details": [NASTY],
        "pictures": [Picture(line, NASTY, NASTY), Picture(line, "small", wide=None)],
        "tables": [Table(NASTY, frame, NASTY)],
        "notes": [NASTY],
        "settings": {NASTY: NASTY, "left empty": None},
    }
    return Page(NASTY, NASTY, **(parts | changed))


def test_what_users_write_is_text_on_the_page():
    html = page().to_html("2026-01-31")
    parsed = Parsed(html)
    assert html.count("<script>") == len(parsed.scripts) == 1  # the page's own
    assert "alert" not in parsed.scripts[0]
    text = "".join(parsed.text)
    # title (twice), verdict, sentence, pictures (title and legend, three times), caption, heading,
    # note of the table, column, cell, note, setting and its value
    assert text.count(NASTY) == 18
    assert "left empty" not in text


def test_a_page_reads_nothing_from_elsewhere():
    html = page(pictures=[Picture(line, "line"), Picture(heat, "heat")]).to_html()
    parsed = Parsed(html)
    assert parsed.addresses() == []
    assert "@import" not in html and not re.search(r"url\((?!#)", html)
    policy = next(own["content"] for tag, own in parsed.tags if "http-equiv" in own)
    assert "default-src 'none'" in policy and "script-src 'sha256-" in policy


def test_ids_are_unique_and_references_lead_to_them():
    html = page().to_html()
    ids = Parsed(html).ids
    assert len(ids) == len(set(ids))
    used = re.findall(r"url\(#([^)]+)\)|xlink:href=\"#([^\"]+)\"", html)
    assert used and {one or other for one, other in used} <= set(ids)


def test_a_page_is_the_same_each_time_but_for_its_date():
    first, second = (page().to_html(day) for day in ("2026-01-31", "2026-02-01"))
    assert first.replace("2026-01-31", "2026-02-01") == second


def test_pictures_follow_the_mode_but_for_those_with_an_image():
    html = page(pictures=[Picture(line, "line", wide=None), Picture(heat, "heat")]).to_html()
    drawn = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert ['class="paper"' in one for one in drawn] == [False, True, True]
    assert not re.search(r"(fill|stroke): #", drawn[0])
    variables = set(re.findall(r"var\((--c-[0-9a-f]{6})\)", html))
    for name in variables:
        assert html.count(f"{name}: #") == 2, name  # a light one and a dark one


def test_dark_colours_of_lines_stand_out_and_areas_stay_behind_them():
    def of(colour):
        return [int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4)]

    ground = of(dark("ffffff"))
    assert contrast(of(dark("000000")), ground) > 12
    assert min(contrast(of(dark(one.lstrip("#").lower())), ground) for one in COLOURS) >= 4.4
    assert contrast(of(dark("bfd9ea")), ground) < 2  # the band of an interval
    assert contrast([0, 0, 0], [1, 1, 1]) == pytest.approx(21)


def test_large_tables_are_cut_and_say_so():
    frame = pd.DataFrame({"row": range(MAX_ROWS + 1500)})
    html = Page("t", "v", tables=[Table("Rows", frame)]).to_html()
    assert html.count("<tr><td") == MAX_ROWS
    assert f"The first {MAX_ROWS} of 2,000 rows." in html


def test_cells_sort_by_number_and_empty_ones_have_no_key():
    keys = re.findall(r'data-key="([^"]+)"', page().to_html())
    assert keys == ["1234.5"]
    assert [cell(one).text for one in (float("inf"), pd.NaT, pd.NA, np.bool_(True), 1e20)] == [
        "∞",
        "",
        "",
        "yes",
        "1e+20",
    ]


def test_a_table_without_rows_has_its_columns():
    html = Page("t", "v", tables=[Table("None", pd.DataFrame({"a": [], "b": []}))]).to_html()
    assert html.count('<th scope="col"') == 2


def test_a_file_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "report.html"
    page().save(path)
    before = path.read_bytes()

    def broken(size):
        raise RuntimeError("this picture fails")

    with pytest.raises(RuntimeError):
        page(pictures=[Picture(broken, "broken")]).save(path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(DataError, match="cannot be written"):
        page(pictures=[]).save(tmp_path / "missing" / "report.html")
