"""Secrets in configs, commands and messages: what is left out of everything that is written or printed.

A key, a token or a password may come in by the keys of a request (`judge.options.extra`), by an address
(`http://user:password@host/v1?api_key=...`) or inside a message. What a run computes does not depend on it, so
fingerprints do without it, too.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "<redacted>"
_WORDS = "api[-_]?key|access[-_]?key|secret[-_]?key|private[-_]?key|secret|passw(?:or)?d|pwd|authorization|credentials?"
_TOKENS = "(?:access|api|auth|bearer|hf|id|refresh|session)[-_]?token"
_NAME = re.compile(f"(?:.*[-_])?(?:{_WORDS}|key|token|auth|cookie|signature|sig)", re.I | re.S)
_HEADERS = re.compile("(?:.*[-_])?headers", re.I | re.S)
_VALUE = rf"(?!{re.escape(REDACTED)})(?:\"[^\"\n]*\"|'[^'\n]*'|(?:(?:bearer|basic)\s+)?[^\s\"',;&}}\]]+)"
_PATTERNS = (
    (re.compile(r"(://)[^/?#\s@\"']+@"), rf"\1{REDACTED}@"),
    (re.compile(r"(\w:/)[^/?#\s@:\"']+:[^/?#\s@\"']*@"), rf"\1{REDACTED}@"),  # taken for a path, which has no //
    (
        re.compile(rf"([?&](?:[\w.-]*[-_.])?(?:{_WORDS}|{_TOKENS}|key|token|sig|signature|code)=)[^&\s\"'#]+", re.I),
        rf"\1{REDACTED}",
    ),
    (re.compile(rf"((?:{_WORDS}|{_TOKENS})(?:=|[\"']\s*:\s*)){_VALUE}", re.I), rf"\1{REDACTED}"),
    (re.compile(r"\b(bearer\s+)[\w.~+/=-]{8,}", re.I), rf"\1{REDACTED}"),
    (re.compile(r"\b(?:sk-|hf_|ghp_)[\w-]{16,}"), REDACTED),
)
_WORD = re.compile(r"[\w.-]+=")  # that begins `key=value`


def redact(value: Any, name: str = "") -> Any:
    """Plain values without the secrets in them; `name` is the key under which they stand."""
    if isinstance(value, Mapping):
        inherited = name if _is_secret(name) else ""
        return {key: redact(inner, inherited or str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redact(inner, name) for inner in value]
    if isinstance(value, str):
        return REDACTED if value and _is_secret(name) else (redact_word if _WORD.match(value) else redact_text)(value)
    is_number = isinstance(value, int | float) and not isinstance(value, bool)  # a password of digits alone
    return REDACTED if is_number and _is_secret(name) else value


def redact_text(text: str) -> str:
    """A text without what looks like a secret in it."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def redact_word(word: str) -> str:
    """A word of a command line, which may be `key=value` with YAML as its value."""
    from genloop.reading import parse_yaml

    key, equals, text = word.partition("=")
    try:
        value = parse_yaml(text, key) if equals else None
    except ValueError:  # refused where it is used
        return redact_text(word)
    kept = redact(value, key)
    if kept == value:
        return word if isinstance(value, Mapping | list) else redact_text(word)
    return f"{key}={kept if isinstance(kept, str) else json.dumps(kept)}"


def holds_redacted(value: Any, key: str = "") -> str | None:
    """The dotted key of the first value that a secret was taken out of; None when there is none."""
    if isinstance(value, Mapping):
        inner = ((part, f"{key}.{name}" if key else str(name)) for name, part in value.items())
    elif isinstance(value, list | tuple):
        inner = ((part, f"{key}.{place}") for place, part in enumerate(value))
    else:
        return key if isinstance(value, str) and REDACTED in value else None
    return next((found for part, name in inner if (found := holds_redacted(part, name))), None)


def _is_secret(name: str) -> bool:
    """Of a key, dotted or not; everything among headers is one."""
    parts = name.split(".")
    return bool(_NAME.fullmatch(parts[-1])) or any(map(_HEADERS.fullmatch, parts))
