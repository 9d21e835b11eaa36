"""Pairs come back from shards as they went in, whatever is wrong with a set is one line that names shard and key."""

import dataclasses
import io
import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from genloop.data.pairs.pair import CodeSpace, Pair, from_row, from_sample, to_row, to_sample
from genloop.data.pairs.shards import PairShards
from genloop.data.shards import Sample, write_shard
from tests.worlds.pairs import CODEBOOK, N, a_pair, write_pairs


def assert_same(a: Pair, b: Pair) -> None:
    for field in dataclasses.fields(Pair):
        mine, other = getattr(a, field.name), getattr(b, field.name)
        if isinstance(mine, np.ndarray):
            assert mine.dtype == other.dtype and (mine == other).all(), field.name
        else:
            assert mine == other, field.name


@pytest.mark.parametrize("number", [0, 1])
def test_a_pair_comes_back_from_a_sample_and_from_a_row(number):
    pair = a_pair(number, verdicts=(True, False))
    found, codebook = from_sample(to_sample(pair, CODEBOOK))
    assert_same(found, pair)
    assert codebook == CODEBOOK
    assert_same(from_row(json.loads(json.dumps(to_row(pair)))), pair)


def test_a_set_is_a_sequence_of_its_pairs_also_in_another_process(tmp_path):
    write_pairs(tmp_path, [a_pair(0), a_pair(1)])
    write_pairs(tmp_path, [a_pair(2)], name="00001")
    found = PairShards(tmp_path, num_codes=16, num_tokens=N, tokenizer=CODEBOOK.tokenizer)
    assert (len(found), found.sizes, found.num_codes, found.num_tokens) == (3, [2, 1], 16, N)
    for number, pair in enumerate(pickle.loads(pickle.dumps(found))):
        assert_same(pair, a_pair(number))
    assert found.name(2).endswith("00001.tar: sample 00002")
    before = found.digest()
    write_pairs(tmp_path, [a_pair(3)], name="00001")
    assert PairShards(tmp_path).digest() != before


def changed(pair: Pair, **fields: bytes) -> Sample:
    sample = to_sample(pair, CODEBOOK)
    return Sample(
        sample.key, {**sample.fields, **{name.replace("_npy", ".npy"): data for name, data in fields.items()}}
    )


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def with_json(**changes: object) -> Sample:
    row = json.loads(to_sample(a_pair(), CODEBOOK).fields["json"])
    return changed(a_pair(), json=json.dumps(row | changes).encode())


BAD = {
    "codes outside of the codebook": (changed(a_pair(), chosen_npy=npy(np.full(N, 16))), "chosen.npy"),
    "sides of two lengths": (changed(a_pair(), rejected_npy=npy(np.zeros(N - 1, int))), "rejected.npy"),
    "codes that are no numbers": (changed(a_pair(), chosen_npy=npy(np.zeros(N))), "chosen.npy"),
    "a torn array": (changed(a_pair(), chosen_npy=b"\x93NUMPY"), "chosen.npy"),
    "no codes": (changed(a_pair(), chosen_npy=npy(np.zeros(0, int)), rejected_npy=npy(np.zeros(0, int))), "chosen.npy"),
    "kept tokens that differ": (changed(a_pair(), kept_npy=npy(np.ones(N, int))), "kept.npy"),
    "no json": (Sample("00000", {"txt": b"x", "chosen.npy": npy(np.zeros(N, int))}), "rejected.npy and json"),
    "json that is none": (changed(a_pair(), json=b"{"), "json"),
    "another schema": (with_json(schema="genloop.pair/9"), "genloop.pair/9"),
    "equal scores": (with_json(scores=[0.5, 0.5]), "scores"),
    "scores that are none": (with_json(scores=[1, "nan"]), "scores"),
    "an unknown kind": (with_json(kind="local"), "local"),
    "a text that is none": (changed(a_pair(), txt=b"\xff"), "txt"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_pair_is_named_by_shard_and_key(name, tmp_path):
    sample, part = BAD[name]
    write_shard(tmp_path / "00000.tar", [sample])
    with pytest.raises(ValueError, match=r"00000\.tar: sample 00000") as caught:
        PairShards(tmp_path)
    assert part in str(caught.value) and "\n" not in str(caught.value)


def test_a_set_of_two_tokenizers_or_two_lengths_is_refused(tmp_path):
    write_pairs(tmp_path, [a_pair(0)])
    write_pairs(tmp_path, [a_pair(2)], name="00001", codebook=CodeSpace(16, "cd" * 32))
    with pytest.raises(ValueError, match=r"00001\.tar: sample 00002: pairs made by another image tokenizer"):
        PairShards(tmp_path)
    short = {name: getattr(a_pair(2), name)[:4] for name in ("chosen", "rejected")}
    write_pairs(tmp_path, [a_pair(2, **short)], name="00001")
    with pytest.raises(ValueError, match=r"00001\.tar: sample 00002: 4 codes"):
        PairShards(tmp_path)


def test_a_bad_pair_behind_the_first_ones_is_named_when_it_is_read(tmp_path):
    bad = Sample("00002", changed(a_pair(2), rejected_npy=npy(np.full(N, 99, np.uint16))).fields)
    write_shard(tmp_path / "00000.tar", [to_sample(a_pair(0), CODEBOOK), bad])
    found = PairShards(tmp_path)
    with pytest.raises(ValueError, match=r"00000\.tar: sample 00002: rejected\.npy: has values"):
        found.read(1)


@pytest.mark.parametrize(
    ("needed", "part"),
    [({"num_codes": 8}, "16 codes"), ({"num_tokens": 4}, f"{N} codes"), ({"tokenizer": "00" * 32}, "another image")],
)
def test_pairs_of_another_world_are_refused(needed, part, tmp_path):
    write_pairs(tmp_path, [a_pair(0)])
    with pytest.raises(ValueError, match=part) as caught:
        PairShards(tmp_path, **needed)
    assert "00000.tar: sample 00000" in str(caught.value)


def _empty(folder: Path) -> None:
    (folder / "00001.tar").write_bytes(bytes(10240))  # a tar file without members


def _truncated(folder: Path) -> None:
    shard = folder / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:-600])


def _truncated_without_index(folder: Path) -> None:
    for index in folder.glob("*.index.*"):
        index.unlink()
    (folder / "00000.tar").write_bytes((folder / "00000.tar").read_bytes()[:700])


@pytest.mark.parametrize("damage", [_empty, _truncated, _truncated_without_index])
def test_an_empty_or_truncated_shard_is_named(damage, tmp_path):
    write_pairs(tmp_path, [a_pair(0)])
    damage(tmp_path)
    with pytest.raises(ValueError, match=r"0000[01]\.tar") as caught:
        PairShards(tmp_path)
    assert "\n" not in str(caught.value)


def test_shuffled_pairs_exchange_about_half_of_the_sides_and_always_the_same(tmp_path):
    folder = write_pairs(tmp_path, [a_pair(number) for number in range(60)])
    plain, shuffled, again = PairShards(folder), PairShards(folder, shuffled_by=3), PairShards(folder, shuffled_by=3)
    swapped = [bool((plain[row].chosen == shuffled[row].rejected).all()) for row in range(60)]
    assert 15 < sum(swapped) < 45
    for row in range(60):
        expected = plain[row].swapped() if swapped[row] else plain[row]
        assert (shuffled[row].chosen == expected.chosen).all() and shuffled[row].scores == expected.scores
        assert (again[row].chosen == shuffled[row].chosen).all()
