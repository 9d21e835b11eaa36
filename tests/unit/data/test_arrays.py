"""Arrays in samples: what is no array of the right whole numbers is refused with its sample, and never trained on."""

import io
import struct

import numpy as np
import pytest

from genloop.data.arrays import check_codes, read_caption, read_codes, read_integers
from genloop.data.shards import Sample, Shards, write_shard


def npy(values) -> bytes:
    stream = io.BytesIO()
    np.save(stream, values, allow_pickle=True)
    return stream.getvalue()


def headed(head: str) -> bytes:
    """A .npy file with this header and no content."""
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head.encode()


def sample(codes: bytes, key: str = "7") -> Sample:
    return Sample(key, {"txt": b"a", "codes.npy": codes})


def zipped() -> bytes:
    stream = io.BytesIO()
    np.savez(stream, np.arange(4))
    return stream.getvalue()


BAD = {
    "fractions": (npy(np.full(4, 0.5)), "type float64"),
    "bool": (npy(np.ones(4, bool)), "type bool"),
    "complex": (npy(np.ones(4, complex)), "type complex128"),
    "text": (npy(np.array(["1"] * 4)), "type <U1"),
    "negative": (npy(np.array([0, 1, -1, 2])), "-1 to 2"),
    "too large": (npy(np.array([0, 1, 8, 2], np.uint16)), "0 to 8"),
    "huge": (npy(np.array([0, 1, 2**64 - 5, 2], np.uint64)), "18446744073709551611"),
    "short": (npy(np.arange(3)), r"shape \[3\].*\[4\]"),
    "grid": (npy(np.zeros((2, 2), int)), r"shape \[2, 2\]"),
    "objects": (npy(np.array([{}] * 4)), "not an array"),
    "nothing": (b"", "not an array"),
    "torn": (npy(np.arange(4))[:-1], "not an array"),
    "zip": (zipped(), "not an array"),
    "endless": (headed("{'descr': '<i8', 'fortran_order': False, 'shape': (1000000000000000,)}"), "not an array"),
    "endless sides": (headed("{'descr': '<i8', 'fortran_order': False, 'shape': (1 << 99,)}"), "not an array"),
    "negative shape": (headed("{'descr': '<i8', 'fortran_order': False, 'shape': (-4,)}"), "not an array"),
    "deep": (headed("(" * 9000), "not an array"),
    "no header": (headed("{'descr': L}"), "not an array"),
}


@pytest.mark.parametrize(("codes", "why"), BAD.values(), ids=BAD)
def test_what_is_no_code_is_refused_with_its_sample(tmp_path, codes, why):
    with pytest.raises(ValueError, match=rf"^sample 7: codes\.npy: .*{why}") as error:
        read_codes(sample(codes), 4, 8)
    assert "\n" not in str(error.value)
    good = [sample(npy(np.arange(4)), str(key)) for key in range(3)]
    write_shard(tmp_path / "a.tar", good)
    write_shard(tmp_path / "b.tar", [sample(codes, "bad"), *good])
    with pytest.raises(ValueError, match=rf"b\.tar: sample bad: codes\.npy: .*{why}"):
        check_codes(Shards(tmp_path), 4, 8)


@pytest.mark.parametrize("kind", ["u1", "<i2", ">i8", "<u8"])
def test_codes_of_any_type_of_integers_are_taken(tmp_path, kind):
    codes = npy(np.array([0, 7, 3, 1], kind))
    assert read_codes(sample(codes), 4, 8).tolist() == [0, 7, 3, 1]
    assert read_codes(sample(codes), None).dtype == np.int64
    write_shard(tmp_path / "a.tar", [sample(codes)])
    check_codes(Shards(tmp_path), 4, 8)


def test_a_sample_of_another_size_or_without_a_field_is_found_among_many(tmp_path):
    good = [sample(npy(np.arange(4)), f"{key:04d}") for key in range(500)]
    for number, (bad, why) in enumerate(
        [(Sample("x", {"txt": b""}), r"lacks codes\.npy,"), (sample(npy([1]), "x"), "shape")]
    ):
        write_shard(tmp_path / f"{number}/a.tar", [*good, bad])
        with pytest.raises(ValueError, match=rf"a\.tar: sample x.*{why}"):
            check_codes(Shards(tmp_path / str(number)), 4, 8)
    write_shard(tmp_path / "c/a.tar", [Sample("x", {"png": b""})])
    with pytest.raises(ValueError, match=r"sample x lacks codes\.npy and txt"):
        check_codes(Shards(tmp_path / "c"), 4, 8)


def test_captions_that_are_no_text_are_named():
    with pytest.raises(ValueError, match="sample 7: txt: no UTF-8"):
        read_caption(Sample("7", {"txt": b"\xff"}))


def test_sides_of_any_length_are_allowed_where_none_is_given():
    cells = Sample("7", {"cells.npy": npy(np.zeros((3, 5, 2), np.uint8))})
    assert read_integers(cells, "cells.npy", (None, None, 2), 256).shape == (3, 5, 2)
    with pytest.raises(ValueError, match=r"needs \[any, any, 3\]"):
        read_integers(cells, "cells.npy", (None, None, 3), 256)
