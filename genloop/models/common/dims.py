"""Sizes out of a config.json: each value has to be of the kind of its field's default. No torch."""

import re
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

MOST_LAYERS = 1000  # also of a list of sizes
LARGEST = 2**31 - 1
_LAYERS = re.compile(r"(layers|blocks|depths?)$")
_EXPECTED = {
    bool: "true or false",
    int: "a whole number above 0",
    float: "a number above 0",
    str: "text",
    tuple: "a list of whole numbers above 0",
}


def read_dims(defaults: Any, data: Mapping[str, Any], path: object) -> Any:
    """The dataclass `defaults` with the values of `data`; its fields of other kinds stay as they are.

    A num_key_value_heads of null is num_attention_heads, as transformers takes it. ValueError names `path` and key.
    """
    if data.get("num_key_value_heads", 0) is None:
        data = {**data, "num_key_value_heads": data.get("num_attention_heads", defaults.num_attention_heads)}
    likes = {item.name: getattr(defaults, item.name) for item in fields(defaults) if item.name in data}
    known = {key: like for key, like in likes.items() if type(like) in _EXPECTED}
    return replace(defaults, **{key: checked(key, data[key], like, path) for key, like in known.items()})


def checked(key: str, value: Any, like: object, path: object) -> Any:
    """`value`, which has to be of the kind of `like`: true or false, text, a number above 0, or a list of those."""
    is_list = isinstance(like, tuple)
    kind = int if is_list else type(like)
    values = value if is_list else [value]
    most = MOST_LAYERS if _LAYERS.search(key) else LARGEST
    whole = isinstance(values, list | tuple) and 0 < len(values) <= MOST_LAYERS
    if not whole or not all(_fits(one, kind, most) for one in values):
        limit = f" and at most {most}" if kind in (int, float) else ""
        raise ValueError(f"{path}: {key} is {value!r:.100}, expected {_EXPECTED[type(like)]}{limit}")
    return tuple(values) if is_list else value


def check_layers(data: Mapping[str, Any], path: object) -> None:
    """ValueError that names `path` and key for more layers than any network has, in groups of any depth."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            check_layers(value, path)
        elif _LAYERS.search(key):
            for one in value if isinstance(value, list) else [value]:
                if isinstance(one, int | float) and not 0 <= one <= MOST_LAYERS:
                    raise ValueError(f"{path}: {key} is {one!r}, expected at most {MOST_LAYERS}")


def _fits(value: Any, kind: type, most: int) -> bool:
    if kind in (bool, str):
        return type(value) is kind
    return type(value) in (int, kind) and 0 < value <= most
