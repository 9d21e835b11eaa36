"""Sizes out of a config.json: what is not of the kind of its default is refused, what is left out is the default."""

from dataclasses import dataclass
from typing import Any

import pytest

from genloop.models.common.dims import read_dims


@dataclass(frozen=True, slots=True)
class Dims:
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    eps: float = 1e-5
    depths: tuple[int, ...] = (1, 2)
    act: str = "gelu"
    bias: bool = True


def test_what_is_left_out_is_the_default_and_a_list_may_have_another_length() -> None:
    found = read_dims(Dims(), {"depths": [3, 4, 5], "eps": 1, "unknown": None}, "here")
    assert found == Dims(depths=(3, 4, 5), eps=1)


def test_null_key_value_heads_are_as_many_as_attention_heads() -> None:
    assert read_dims(Dims(), {"num_key_value_heads": None}, "here") == Dims(num_key_value_heads=4)
    assert read_dims(Dims(), {"num_key_value_heads": None, "num_attention_heads": 8}, "here") == Dims(8, 8)


@pytest.mark.parametrize(
    ("key", "value"),
    [("num_attention_heads", True), ("num_attention_heads", 1.0), ("num_attention_heads", 2**31), ("bias", 1)]
    + [("eps", 0), ("eps", float("nan")), ("eps", None), ("depths", []), ("depths", [1, 0]), ("depths", 3), ("act", 3)],
)
def test_a_value_of_another_kind_is_refused(key: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"here: {key} is .*, expected "):
        read_dims(Dims(), {key: value}, "here")
