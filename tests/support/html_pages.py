"""Pages of HTML as a parser sees them: tags, attributes, scripts, text."""

from html.parser import HTMLParser

#: Elements without an end.
_VOID = {"meta", "link", "br", "img"}


class Parsed(HTMLParser):
    """A page that was parsed; a tag that does not match its end is an error."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.ids, self.scripts, self.text, self._open = [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self._open, f"these tags have no end: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        if tag not in _VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        (self.scripts if self._open[-1:] == ["script"] else self.text).append(data)

    def addresses(self):
        """List what the page links to or loads, besides parts of itself."""
        names = ("src", "href", "xlink:href", "srcset", "action", "data")
        found = [own[name] for _, own in self.tags for name in names if name in own]
        return [one for one in found if not one.startswith(("#", "data:"))]
