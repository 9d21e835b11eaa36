"""Bounds of numbers in configs: a field may narrow those of its type, never widen them."""

import pytest
from pydantic import Field, ValidationError

from genloop.bounds import Count, Factor, Share, Width
from genloop.config import Settings


class Narrow(Settings):
    group: Count = Field(4, ge=2)
    num_bits: Width = Field(10, le=16)
    wide: Count = Field(4, ge=-5, le=10**9)
    share: Share = Field(0.5, gt=0, lt=1)
    theta: Factor | None = Field(10.0, gt=1)


@pytest.mark.parametrize(
    ("key", "value"),
    [("group", 1), ("num_bits", 17), ("num_bits", 0), ("wide", 0), ("wide", 10**6 + 1), ("share", 0), ("share", 1)]
    + [("theta", 1.0), ("theta", 1e10)],
)
def test_a_number_outside_of_the_narrower_bounds_is_refused(key: str, value: float) -> None:
    with pytest.raises(ValidationError, match=key):
        Narrow.model_validate({key: value})


def test_a_number_at_the_bounds_is_taken() -> None:
    assert Narrow(group=2, num_bits=16, wide=10**6, share=0.99, theta=None).group == 2
