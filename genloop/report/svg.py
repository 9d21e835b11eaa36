"""SVG as text: elements with escaped attributes, the look that all figures share, and how wide a text will be."""

from collections.abc import Sequence
from html import escape

FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'
HUES = ("blue", "orange", "teal", "violet", "red", "olive", "pink", "grey")
_LIGHT = ("#1d5fc4", "#b3500b", "#0b7268", "#7a34c9", "#b3261e", "#5c6a12", "#b0287a", "#4f5965")
_DARK = ("#7cb0ff", "#f2a766", "#55d0c2", "#c7a6ff", "#ff9b8f", "#c3d463", "#ff9bd2", "#aab4bf")
_WIDE, _NARROW = frozenset("mwMW%@—×"), frozenset("iljtfrI1 .,:;'|()[]/-")


def element(name: str, *content: str, **attributes: object) -> str:
    """<name attribute="...">content</name>; `class_` is class, `text_anchor` text-anchor; None leaves one out.

    Content is markup already: pass texts through `html.escape`.
    """
    words = [
        f' {key.rstrip("_").replace("_", "-")}="{escape(_plain(value))}"'
        for key, value in attributes.items()
        if value is not None
    ]
    inner = "".join(content)
    return f"<{name}{''.join(words)}>{inner}</{name}>" if inner else f"<{name}{''.join(words)}/>"


def label(text: str, x: float, y: float, **attributes: object) -> str:
    """A text with its baseline at y."""
    return element("text", escape(text), x=x, y=y, **attributes)


def path(points: Sequence[tuple[float, float]], *, closed: bool = False) -> str:
    """The `d` of a path through points."""
    steps = " ".join(f"{_plain(x)} {_plain(y)}" for x, y in points)
    return f"M{steps}{'z' if closed else ''}"


def marker(number: int, x: float, y: float) -> str:
    """The mark of the family of that number, in its hue: five shapes, eight hues, hollow from the ninth family on."""
    shapes = ("M-4.8-4.8H4.8V4.8H-4.8z", "M0-6.4 6.4 0 0 6.4-6.4 0z", "M0-6 6 5H-6z", "M0 6 6-5H-6z")
    style = {
        "transform": f"translate({_plain(x)} {_plain(y)})",
        "class_": f"{hue(number)} {'mark' if number < len(HUES) else 'hollow'}",
    }
    if number % 5 == 0:
        return element("circle", r=5.2, **style)
    return element("path", d=shapes[number % 5 - 1], **style)


def hue(number: int) -> str:
    """The class that gives a family its colour."""
    return HUES[number % len(HUES)]


def document(title: str, width: float, height: float, *content: str) -> str:
    """A figure that stands alone, light or dark as its reader's screen is."""
    style = element("style", _style())
    head = element("title", escape(title))
    ground = element("rect", width=width, height=height, rx=12, class_="ground")
    return (
        element(
            "svg",
            *(head, style, ground, *content),
            xmlns="http://www.w3.org/2000/svg",
            viewBox=f"0 0 {_plain(width)} {_plain(height)}",
            width=width,
            height=height,
            role="img",
        )
        + "\n"
    )


def text_width(text: str, size: float) -> float:
    """About how wide a text is in px; rather too wide than too narrow."""
    ems = sum(0.95 if c in _WIDE else 0.36 if c in _NARROW else 0.68 if c.isupper() else 0.6 for c in text)
    return size * ems


def _style() -> str:
    def colors(ink: str, muted: str, line: str, ground: str, hues: Sequence[str]) -> str:
        names = {"ink": ink, "muted": muted, "line": line, "ground": ground, **dict(zip(HUES, hues))}
        return "svg{" + "".join(f"--{name}:{value};" for name, value in names.items()) + "}"

    rules = [
        colors("#16191d", "#58616c", "#dde2e8", "#ffffff", _LIGHT),
        f"@media (prefers-color-scheme:dark){{{colors('#e8ebef', '#a0aab6', '#2c333b', '#171b20', _DARK)}}}",
        f"text{{font:13px {FONT};fill:var(--ink);font-variant-numeric:tabular-nums}}",
        ".ground{fill:var(--ground)} .grid{stroke:var(--line)} .tick{font-size:12px;fill:var(--muted)}",
        ".title{font-size:16px;font-weight:650} .axis{fill:var(--muted)}",
        ".curve{fill:none;stroke-width:2.25;stroke-linejoin:round} .dashed{stroke-dasharray:6 4}",
        ".band{opacity:.14;stroke:none} .whisker{stroke-width:1.75} .leader{stroke:var(--muted);stroke-width:1}",
        ".halo{paint-order:stroke;stroke:var(--ground);stroke-width:3.5px;stroke-linejoin:round}",
        ".front{fill:none;stroke:var(--muted);stroke-width:7;opacity:.22;stroke-linejoin:round;stroke-linecap:round}",
        ".mark{fill:var(--hue);stroke:var(--ground);stroke-width:1.25}",
        ".hollow{fill:var(--ground);stroke:var(--hue);stroke-width:2}",
        *(f".{hue}{{--hue:var(--{hue})}}" for hue in HUES),
        ".fill{fill:var(--hue)} .stroke{stroke:var(--hue)} .name{font-weight:600}",
    ]
    return "".join(rules)


def _plain(value: object) -> str:
    """Numbers with two decimals at most; everything else as it is."""
    if not isinstance(value, float):
        return str(value)
    text = f"{value:.2f}".rstrip("0").rstrip(".")
    return "0" if text == "-0" else text
