"""Shards: reproducible bytes, whole or not there, readable by WebDataset, any sample at any time."""

import bz2
import gzip
import io
import json
import lzma
import os
import pickle
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import webdataset
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader

from genloop.data.shards import Sample, Shards, index_path, table_path, write_shard


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
    assert Shards(tmp_path / "a").digest() == Shards(tmp_path / "b").digest()


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
    with pytest.raises(ValueError, match=r"x\.tar: changed"):
        Shards(tmp_path).digest()
    shard.write_bytes(data[:-512])
    with pytest.raises(ValueError, match="its index says"):
        Shards(tmp_path)
    index_path(shard).unlink()
    shard.write_bytes(b"no tar")
    with pytest.raises(ValueError, match="not a whole tar file"):
        Shards(tmp_path)


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


def test_memory_and_start_do_not_grow_with_the_samples(tmp_path):
    """The table is mapped, so that what a process holds is the same for few samples and many."""
    write_shard(tmp_path / "x.tar", samples(0, 50))
    shards = Shards(tmp_path)
    assert isinstance(shards.indices[0].load(), np.memmap)
    assert len(pickle.dumps(shards)) < 1000


def test_a_copy_in_another_process_reads_the_same(tmp_path):
    """As workers of a DataLoader do, started by fork or by spawn, beside their parent."""
    for name, start in (("a", 0), ("b", 6)):
        write_shard(tmp_path / f"{name}.tar", samples(start, 6))
    index_path(tmp_path / "b.tar").unlink()  # this one's table is in memory
    shards = Shards(tmp_path)
    expected = list(shards)
    assert list(pickle.loads(pickle.dumps(shards))) == expected
    loader = DataLoader(shards, batch_size=None, num_workers=2, collate_fn=_as_it_is)
    assert list(loader) == expected


def _as_it_is(sample):
    return sample


def test_sizes_fields_and_single_fields(tmp_path):
    write_shard(tmp_path / "a.tar", samples(0, 3))
    write_shard(tmp_path / "b.tar", [Sample("x", {"json": b"{}", "txt": b"caption 2 \xc3\xa9"})])
    shards = Shards(tmp_path)
    assert shards.sizes == [3, 1] and shards.fields == ("codes.npy", "txt", "json")
    assert shards.read(3, ("json", "png")) == Sample("x", {"json": b"{}"})
    assert shards.column("json")["size"].tolist() == [-1, -1, -1, 2]
    digests = shards.column("txt")["digest"].tolist()
    assert digests[2] == digests[3] and len(set(digests)) == 3 and 0 not in digests


def test_an_index_of_the_first_schema_is_read(tmp_path):
    write_shard(tmp_path / "x.tar", samples(0, 4))
    rows, head = list(Shards(tmp_path)), json.loads(index_path(tmp_path / "x.tar").read_text())
    with tarfile.open(tmp_path / "x.tar") as tar:
        places = {member.name: [member.offset_data, member.size] for member in tar}
    listed = [[row.key, {field: places[f"{row.key}.{field}"] for field in row.fields}] for row in rows]
    digest = Shards(tmp_path).digest()
    table_path(tmp_path / "x.tar").unlink()
    index_path(tmp_path / "x.tar").write_text(json.dumps(head | {"schema": 1, "samples": listed}))
    assert list(Shards(tmp_path)) == rows and Shards(tmp_path).digest() == digest


def test_a_changed_shard_is_noticed_and_a_copied_one_is_not_taken_for_changed(tmp_path):
    (tmp_path / "a").mkdir()
    shard = tmp_path / "a/x.tar"
    write_shard(shard, samples(0, 3))
    digest = Shards(tmp_path / "a").digest()
    shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    assert Shards(tmp_path / "b").digest() == digest
    data, times = shard.read_bytes(), (shard.stat().st_atime_ns, shard.stat().st_mtime_ns)
    shard.write_bytes(data.replace(b"caption 1", b"caption 9"))
    for path in (shard, index_path(shard)):  # as archives restore them: all of one time
        os.utime(path, ns=times)
    changed = Shards(tmp_path / "a")
    with pytest.raises(ValueError, match=r"x\.tar: changed since .*x\.index\.json"):
        changed.digest()
    with pytest.raises(ValueError, match=r"x\.tar: sample 000001: txt changed since .*x\.index\.json"):
        changed.read(1)
    assert changed.read(1, ("codes.npy",)) == Sample("000001", {"codes.npy": samples(1, 1)[0].fields["codes.npy"]})
    index_path(shard).unlink()
    assert Shards(tmp_path / "a").digest() != digest  # used as it is


@pytest.mark.parametrize(
    "spoil",
    [
        lambda head, table: head.write_text("[1]"),
        lambda head, table: head.write_bytes(b"\xff"),
        lambda head, table: head.write_text("[" * 100_000),
        lambda head, table: _edit(head, samples="3"),
        lambda head, table: _edit(head, samples=4),
        lambda head, table: _edit(head, fields=["txt"]),
        lambda head, table: _edit(head, fields=7),
        lambda head, table: _edit(head, sha256=None),
        lambda head, table: _edit(head, schema=1),
        lambda head, table: _edit(head, schema=1, samples=[["a", {"txt": [512, 1 << 40]}]]),
        lambda head, table: _edit(head, schema=1, samples=[["a", {"txt": [-1, 3]}]]),
        lambda head, table: _edit(head, schema=1, samples=[["a", {"txt": [0.5, 3]}]]),
        lambda head, table: _edit(head, schema=1, samples=[["a", {"txt": [1 << 70, 3]}]]),
        lambda head, table: _edit(head, schema=1, samples=[["a", {"txt": "12"}]]),
        lambda head, table: table.unlink(),
        lambda head, table: table.write_bytes(b""),
        lambda head, table: table.write_bytes(table.read_bytes()[:-1]),
        lambda head, table: np.save(table, np.zeros(3)),
        lambda head, table: np.save(table, np.array([{}] * 3), allow_pickle=True),
        lambda head, table: _move(table, "offset", 1 << 40),
        lambda head, table: _move(table, "offset", -1),
        lambda head, table: _move(table, "size", -2),
        lambda head, table: _move(table, "size", (1 << 63) - 1),
    ],
)
def test_a_spoilt_index_is_refused_in_one_line(tmp_path, spoil):
    write_shard(tmp_path / "x.tar", samples(0, 3))
    spoil(index_path(tmp_path / "x.tar"), table_path(tmp_path / "x.tar"))
    with pytest.raises(ValueError, match="not an index of a shard") as error:
        Shards(tmp_path)
    assert "\n" not in str(error.value)


def _edit(head, **values):
    head.write_text(json.dumps(json.loads(head.read_text()) | values))


def _move(table, column, value):
    rows = np.load(table)
    rows["txt"][column][1] = value
    np.save(table, rows)


def test_fields_that_would_not_come_back_are_refused(tmp_path):
    for field in ("", "PNG", "a/b", "_meta"):
        with pytest.raises(ValueError, match="lower case"):
            write_shard(tmp_path / "x.tar", [Sample("a", {field: b""})])
    with pytest.raises(ValueError, match="holds no samples"):
        write_shard(tmp_path / "x.tar", [])


# --- shards from elsewhere -------------------------------------------------------------------------------------------


def archive(path, names, size=700):
    """A tar with these members, as other tools write it; the contents are the names."""
    with tarfile.open(path, "w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(name.encode().ljust(size)))


def test_no_cut_and_no_damaged_header_loses_samples_in_silence(tmp_path):
    archive(tmp_path / "x.tar", [f"{i:04d}.{field}" for i in range(6) for field in ("png", "txt")])
    data, whole = (tmp_path / "x.tar").read_bytes(), list(Shards(tmp_path))
    headers = [i * 1536 for i in range(12)]
    spoilt = [data[:size] for size in [*range(0, len(data), 512), *range(37, len(data), 997)]]
    spoilt += [data[: at + 150] + bytes([data[at + 150] ^ 1]) + data[at + 151 :] for at in headers]
    accepted = 0
    for content in spoilt:
        (tmp_path / "x.tar").write_bytes(content)
        try:
            assert list(Shards(tmp_path)) == whole  # cut in the padding after the end
            accepted += 1
        except ValueError as error:
            assert "not a whole tar file" in str(error) or "holds no samples" in str(error)
    assert 0 < accepted < len(spoilt) / 3


def header(name, size, kind=tarfile.REGTYPE):
    """The header block of a member whose size need not be true."""
    member = tarfile.TarInfo(name)
    member.size, member.type = size, kind
    return member.tobuf(tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    "head",
    [
        header("a.txt", -512),
        header("a.txt", -(1 << 62)),
        header("a.d", -1024, tarfile.DIRTYPE),
        header("a.txt", 1 << 62),
        header("a.txt", (1 << 63) - 1),
        tarfile.TarInfo.create_pax_global_header({"size": "9" * 30}) + header("a.txt", 512),
        tarfile.TarInfo.create_pax_global_header({"size": "-512"}) + header("a.txt", 512),
        header("././@LongLink", 1 << 62, tarfile.GNUTYPE_LONGNAME),
        header("././@LongLink", -512, tarfile.GNUTYPE_LONGNAME),
        (header("././@LongLink", 512, tarfile.GNUTYPE_LONGNAME) + b"a" * 512) * 1500,
        header("x", -512, tarfile.XHDTYPE),
    ],
)
def test_sizes_that_no_member_can_have_are_refused(tmp_path, head):
    (tmp_path / "x.tar").write_bytes(header("0.txt", 512) + bytes(512) + head + bytes(512) + bytes(10240))
    with pytest.raises(ValueError, match=r"x\.tar: not a whole tar file") as error:
        Shards(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_compressed_shards_are_refused(tmp_path, pack):
    archive(tmp_path / "x.tar", ["0.txt"])
    data = pack((tmp_path / "x.tar").read_bytes())
    for name in ("x.tar", "x.tar.gz", "x.tgz"):
        folder = tmp_path / name.replace(".", "-")
        folder.mkdir()
        (folder / name).write_bytes(data)
        with pytest.raises(ValueError, match=f"{name}: compressed"):
            Shards(folder)
        with pytest.raises(ValueError, match="compressed"):
            Shards(folder / name)
    (tmp_path / "x.tar.gz").write_bytes(data)  # beside the shard that it was
    assert len(Shards(tmp_path)) == 1


def test_names_are_taken_as_webdataset_takes_them(tmp_path):
    names = [
        *("._0000.png", "0000.PNG", "0000.txt", "README", ".hidden", "__meta__/info.json", "__MACOSX/._0000.png"),
        *("a.b/0001.png", "a.b/0001.seg.PNG", "a.b/.DS_Store", "./0002.txt", "0003."),
    ]
    archive(tmp_path / "x.tar", names)
    with tarfile.open(tmp_path / "x.tar", "a") as tar:
        for name, kind in (("folder.d", tarfile.DIRTYPE), ("link.png", tarfile.SYMTYPE)):
            member = tarfile.TarInfo(name)
            member.type = kind
            tar.addfile(member)
    read = [(sample.key, sorted(sample.fields)) for sample in Shards(tmp_path)]
    assert read == [("0000", ["png", "txt"]), ("a.b/0001", ["png", "seg.png"]), ("./0002", ["txt"])]
    theirs = webdataset.WebDataset(str(tmp_path / "x.tar"), shardshuffle=False)
    fields = {row["__key__"]: sorted(name for name in row if name[:1] != "_") for row in theirs}
    assert {key: fields[key] for key, _ in read} == dict(read)


def test_a_field_that_comes_twice_and_members_that_are_no_samples_are_refused(tmp_path):
    archive(tmp_path / "x.tar", ["0.png", "0.txt", "0.PNG"])
    with pytest.raises(ValueError, match=r"x\.tar: .*'0' .*'png' twice"):
        Shards(tmp_path)
    archive(tmp_path / "x.tar", ["README", "LICENSE"])
    with pytest.raises(ValueError, match="holds no samples"):
        Shards(tmp_path)
    archive(tmp_path / "x.tar", [f"photo.{i:04d}.png" for i in range(70)], size=10)
    with pytest.raises(ValueError, match="more than 64 different fields"):
        Shards(tmp_path)


def test_what_is_no_regular_file_is_no_shard(tmp_path):
    os.mkfifo(tmp_path / "x.tar")
    for source in (tmp_path, tmp_path / "x.tar", Path("/dev/zero")):
        with pytest.raises(ValueError, match="no regular file"):
            Shards(source)
    (tmp_path / "x.tar").unlink()
    (tmp_path / "x.tar").mkdir()
    with pytest.raises(ValueError, match="no regular file"):
        Shards(tmp_path)
    (tmp_path / "x.tar").rmdir()
    archive(tmp_path / "._x.tar", ["0.txt"])  # what macOS leaves beside a file is not counted
    with pytest.raises(FileNotFoundError, match="no shards"):
        Shards(tmp_path)
