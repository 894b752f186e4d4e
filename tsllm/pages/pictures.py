"""Pictures as inline SVG: text stays text, and colours follow the reader's light or dark mode."""

import colorsys
import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tsllm.plotting.style import new_axes, tidy

_SVG, _LINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
#: Parts of matplotlib's output that the page does without.
_UNUSED = (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style")
_COLOUR = re.compile(r"#([0-9a-f]{6})\b")
_REFERENCE = re.compile(r"url\(#([^)]+)\)")
#: Inches of a picture for phones, and points of the text of every picture.
NARROW, TEXT = (3.9, 3.2), 9.0
#: The lightness of white and of black in dark mode.
_DARKEST, _LIGHTEST = 0.10, 0.94
#: Colours that are lighter fill areas behind lines; darker ones draw lines and text, which need
#: this contrast.
_AREA, _LEGIBLE = 0.65, 4.5


@dataclass(frozen=True)
class Picture:
    """A figure that is drawn for wide screens and for phones.

    Attributes
    ----------
    figure : callable
        Takes a size in inches (width, height) and returns a figure of matplotlib.
    label : str
        What the picture shows, for readers who cannot see it.
    caption : str, default=""
        A line below the picture.
    wide, narrow : (float, float) or None
        The sizes for wide screens and for phones. ``wide`` None: small, beside other pictures.
    """

    figure: Callable[[tuple[float, float]], Any]
    label: str
    caption: str = ""
    wide: tuple[float, float] | None = (9.0, 4.0)
    narrow: tuple[float, float] = NARROW


def axes_of(size: tuple[float, float], *, rows: int = 1) -> Any:
    """Make the axes of a picture in a size, with text that suits it."""
    axes = new_axes(size[1], rows=rows, width=size[0])
    for ax in [axes] if rows == 1 else axes:
        tidy(ax, TEXT)
    return axes


@dataclass(frozen=True)
class Drawn:
    """A picture as SVG, once for each size, and the colours that follow the mode.

    ``place`` is "alone", "small" or "medium": how many stand beside each other.
    """

    label: str
    caption: str
    wide: Markup | None
    narrow: Markup
    place: str
    colours: frozenset[str]


def draw(picture: Picture, number: int) -> Drawn:
    """Draw a picture in its sizes; ``number`` tells its ids from those of other pictures."""
    colours: set[str] = set()
    sizes = {"w": picture.wide, "n": picture.narrow}
    drawn = {
        name: None
        if size is None
        else as_svg(picture.figure(size), f"p{number}{name}", picture.label, colours)
        for name, size in sizes.items()
    }
    assert drawn["n"] is not None  # every picture has a narrow size
    place = "small" if picture.narrow[0] < 5 else "medium"
    if picture.wide is not None:
        place = "alone"
    found = frozenset(colours)
    return Drawn(picture.label, picture.caption, drawn["w"], drawn["n"], place, found)


def as_svg(figure: Any, prefix: str, label: str, colours: set[str]) -> Markup:
    """Draw a figure as an ``svg`` element whose ids begin with ``prefix``.

    Colours become variables ``--c-RRGGBB`` of style, which are added to ``colours``. A figure with
    an image keeps its colours, because the text on the image has to fit it.
    """
    from matplotlib import rc_context
    from matplotlib.text import Text

    for text in figure.findobj(Text):
        if "$" in text.get_text() and not text.get_text().startswith("$\\mathdefault{"):
            text.set_parse_math(False)  # a name with a dollar is no formula
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": prefix}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    root = ET.fromstring(buffer.getvalue())  # matplotlib's own output
    for parent in list(root.iter()):
        for gone in [one for one in parent if one.tag in _UNUSED]:
            parent.remove(gone)
    pictured = root.find(f".//{{{_SVG}}}image") is not None
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _LINK)
    used = {name for one in root.iter() for name in _references(one)}
    for element in root.iter():
        _rename(element, prefix, used)
        if not pictured:
            _follow_mode(element, colours)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("class", "paper" if pictured else "picture")
    root.set("role", "img")
    root.set("aria-label", label)
    return Markup(ET.tostring(root, encoding="unicode"))  # ElementTree has escaped its text


def dark_colours(pictures: Iterable[Drawn]) -> dict[str, str]:
    """Return the colours of pictures with their counterparts in dark mode."""
    found = sorted(set().union(*(picture.colours for picture in pictures), {"000000"}))
    return {colour: dark(colour) for colour in found}


def dark(colour: str) -> str:
    """Return a colour of the same hue whose lightness is turned around.

    Colours of lines and text are lightened further until they stand out from the dark ground.

    Examples
    --------
    >>> dark("000000"), dark("ffffff")
    ('f0f0f0', '1a1a1a')
    """
    red, green, blue = (int(colour[place : place + 2], 16) / 255 for place in (0, 2, 4))
    hue, light, saturation = colorsys.rgb_to_hls(red, green, blue)
    turned = _LIGHTEST - (_LIGHTEST - _DARKEST) * light
    parts = colorsys.hls_to_rgb(hue, turned, saturation)
    while light < _AREA and contrast(parts, (_DARKEST,) * 3) < _LEGIBLE:
        turned += 0.01
        parts = colorsys.hls_to_rgb(hue, turned, saturation)
    return "".join(f"{round(255 * part):02x}" for part in parts)


def contrast(one: Sequence[float], other: Sequence[float]) -> float:
    """Compute the contrast of two colours (red, green, blue from 0 to 1), from 1 to 21.

    References
    ----------
    World Wide Web Consortium (2018), "Web Content Accessibility Guidelines 2.1", section 1.4.3.
    """
    low, high = sorted(
        sum(
            weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4)
            for part, weight in zip(colour, (0.2126, 0.7152, 0.0722))
        )
        for colour in (one, other)
    )
    return (high + 0.05) / (low + 0.05)


def _references(element: ET.Element) -> list[str]:
    """List the ids that an element refers to."""
    found = _REFERENCE.findall(" ".join(element.attrib.values()))
    for name in (f"{{{_LINK}}}href", "href"):
        if element.get(name, "").startswith("#"):
            found.append(element.attrib[name][1:])
    return found


def _rename(element: ET.Element, prefix: str, used: set[str]) -> None:
    """Prefix the ids that are used, and drop the others; a page has several pictures."""
    for name, value in list(element.attrib.items()):
        if name == "id":
            if value in used:
                element.set(name, f"{prefix}-{value}")
            else:
                del element.attrib[name]
        elif name in (f"{{{_LINK}}}href", "href") and value.startswith("#"):
            element.set(name, f"#{prefix}-{value[1:]}")
        elif "url(#" in value:
            element.set(name, _REFERENCE.sub(rf"url(#{prefix}-\1)", value))


def _follow_mode(element: ET.Element, colours: set[str]) -> None:
    """Turn the colours of an element into variables."""
    for name in ("fill", "stroke"):  # as attributes they cannot be variables
        if name in element.attrib:
            own = element.get("style", "")
            element.set("style", f"{name}: {element.attrib.pop(name)}; {own}".rstrip("; "))
    style = element.get("style", "")
    if style:
        colours.update(_COLOUR.findall(style))
        element.set("style", _COLOUR.sub(r"var(--c-\1)", style))
