"""Markdown that jobs write -> markup of a page: headings, lists and tables; no links, images or HTML of its own."""

from collections.abc import Sequence
from typing import Any

from genloop.terminal import clean


def markup_of(text: str) -> Any:
    """The text as safe markup; its headings are one level below those of sections."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    found = MarkdownIt("commonmark", {"html": False}).enable("table").disable(["link", "autolink", "image"])
    found.add_render_rule("table_open", _table_open)
    found.add_render_rule("table_close", _table_close)
    tokens = found.parse(clean(text))
    for token in tokens:
        if token.type in {"heading_open", "heading_close"}:
            token.tag = "h3" if token.tag in {"h1", "h2"} else "h4"
        if token.type == "th_open":
            token.attrSet("scope", "col")
        if token.type in {"th_open", "td_open"}:
            token.attrs.pop("style", None)  # how a table is aligned is the page's to say
    return Markup(found.renderer.render(tokens, found.options, {}))


def _table_open(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return '<div class="panel scroll" role="region" aria-label="Table" tabindex="0">\n<table>\n'


def _table_close(renderer: Any, tokens: Sequence[Any], index: int, options: Any, env: Any) -> str:
    return "</table>\n</div>\n"
