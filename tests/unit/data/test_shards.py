"""Shards: reproducible bytes, whole or not there, readable by WebDataset, any sample at any time."""

import io
import json
import tarfile

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st

from genloop.data.shards import Sample, Shards, content_digest, index_path, read_indices, verify_shards, write_shard


def samples(start: int, count: int) -> list[Sample]:
    rows = []
    for i in range(start, start + count):
        buffer = io.BytesIO()
        np.save(buffer, np.arange(i, dtype=np.uint16))
        rows.append(Sample(f"{i:06d}", {"txt": f"caption {i} é".encode(), "codes.npy": buffer.getvalue()}))
    return rows


def test_the_same_samples_give_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write_shard(tmp_path / name / "00000.tar", samples(0, 7))
    for file in ("00000.tar", "00000.index.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert content_digest(tmp_path / "a") == content_digest(tmp_path / "b")


def test_any_sample_is_read_in_any_order(tmp_path):
    rows = samples(0, 11)
    for shard, start in enumerate(range(0, 11, 4)):
        write_shard(tmp_path / f"{shard:05d}.tar", rows[start : start + 4])
    shards = Shards(tmp_path)
    assert len(shards) == 11
    assert list(shards) == rows
    assert [shards[i] for i in (10, 0, 5)] == [rows[10], rows[0], rows[5]]
    with pytest.raises(IndexError):
        shards[11]


def test_webdataset_reads_what_we_write(tmp_path):
    write_shard(tmp_path / "00000.tar", samples(3, 4))
    read = list(webdataset.WebDataset(str(tmp_path / "00000.tar"), shardshuffle=False).decode())
    assert [row["__key__"] for row in read] == ["000003", "000004", "000005", "000006"]
    assert read[1]["txt"] == "caption 4 é"
    assert (read[2]["codes.npy"] == np.arange(5)).all()


def test_we_read_what_webdataset_writes(tmp_path):
    with webdataset.TarWriter(str(tmp_path / "00000.tar")) as writer:
        for i in range(3):
            writer.write({"__key__": f"part/{i}", "txt": f"caption {i}", "json": {"i": i}})
    read = list(Shards(tmp_path))
    assert [sample.key for sample in read] == ["part/0", "part/1", "part/2"]
    assert [json.loads(sample.fields["json"]) for sample in read] == [{"i": 0}, {"i": 1}, {"i": 2}]


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(st.dictionaries(st.sampled_from(["txt", "json", "a.b"]), st.binary(max_size=1500), min_size=1)))
def test_bytes_come_back_and_a_scan_agrees_with_the_sidecar(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("shards")
    written = [Sample(str(i), fields) for i, fields in enumerate(rows)] or samples(0, 1)
    write_shard(folder / "x.tar", written)
    assert list(Shards(folder)) == written
    index_path(folder / "x.tar").unlink()
    assert list(Shards(folder)) == written


def test_nothing_of_this_machine_is_in_a_shard(tmp_path):
    write_shard(tmp_path / "x.tar", samples(0, 2))
    with tarfile.open(tmp_path / "x.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.gname) == (0, 0, 0, "", "")


def test_a_failed_shard_leaves_nothing_behind(tmp_path):
    def broken():
        yield from samples(0, 2)
        raise RuntimeError("no more samples")

    with pytest.raises(RuntimeError, match="no more samples"):
        write_shard(tmp_path / "x.tar", broken())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["", "a.b", "a/b", "000000"])
def test_bad_and_repeated_keys_are_refused(tmp_path, key):
    with pytest.raises(ValueError, match="empty, repeated or holds a dot"):
        write_shard(tmp_path / "x.tar", [*samples(0, 1), Sample(key, {"txt": b""})])


def test_torn_and_changed_shards_are_named(tmp_path):
    shard = tmp_path / "x.tar"
    write_shard(shard, samples(0, 3))
    data = shard.read_bytes()
    shard.write_bytes(data.replace(b"caption", b"Caption"))
    with pytest.raises(ValueError, match=r"changed since they were written: x\.tar"):
        verify_shards(tmp_path)
    shard.write_bytes(data[:-512])
    with pytest.raises(ValueError, match="its index says"):
        read_indices(tmp_path)
    index_path(shard).unlink()
    shard.write_bytes(b"no tar")
    with pytest.raises(ValueError, match="not a whole tar file"):
        read_indices(tmp_path)


def test_a_broken_or_newer_index_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no shards"):
        Shards(tmp_path)
    write_shard(tmp_path / "x.tar", samples(0, 1))
    index_path(tmp_path / "x.tar").write_text("{}")
    with pytest.raises(ValueError, match="not an index of a shard"):
        Shards(tmp_path)
    index_path(tmp_path / "x.tar").write_text('{"schema": 9, "bytes": 1, "sha256": "", "samples": [["a", {}]]}')
    with pytest.raises(ValueError, match="schema 9"):
        Shards(tmp_path)
