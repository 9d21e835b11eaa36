"""Templates -> pages: one environment, and how numbers are written on all of them."""

import base64
from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from genloop.records import COLORS
from genloop.terminal import clean

_FRAME: dict[str, Any] = {"notices": (), "reading": (), "records": (), "files": (), "pages": (), "home": ""}
"""What base.html.j2 shows where a page says nothing of it."""


def render(template: str, content: Mapping[str, Any]) -> str:
    """A template of this package with its content."""
    environment = Environment(
        loader=PackageLoader("genloop.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_shown,
    )
    environment.filters |= {
        "percent": percent,
        "signed": signed,
        "p_value": _p_value,
        "words": _words,
        "swatch": _swatch,
    }
    return environment.get_template(template).render({**_FRAME, **content, "sections": []})


def _shown(value: Any) -> Any:
    """What stands in a template's braces: texts as on a terminal; markup and the bytes of pictures as they are."""
    return clean(value) if type(value) is str and not value.startswith("data:image/") else value


def as_link(figure: str | bytes) -> str:
    """An SVG document as an address, for inside of a page."""
    data = figure.encode() if isinstance(figure, str) else figure
    return f"data:image/svg+xml;base64,{base64.b64encode(data).decode()}"


def percent(share: float, digits: int = 1) -> str:
    """A share in percent, without the sign."""
    return f"{100 * share:.{digits}f}"


def signed(share: float) -> str:
    """Points; a rounded zero has no sign."""
    text = f"{100 * share:+.1f}"
    return "0.0" if text in {"+0.0", "-0.0"} else minus(text)


def minus(number: str) -> str:
    """With a minus sign as wide as the plus sign, which a line does not end on."""
    return number.replace("-", "−")


def _p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def _swatch(color: str) -> str:
    """A named colour as CSS; rows may hold any text for one."""
    return color if color in COLORS else "transparent"


def _words(name: str) -> str:
    return name.replace("_", " ")
