"""The IDX reader: what it accepts, and that it accepts nothing else."""

import ast
import gzip
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import dualflat.learn.idx
from dualflat.learn.idx import IdxError, read_folder, read_idx, write_idx

IMAGES = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def head(*shape, code=8, ndim=None):
    ndim = len(shape) if ndim is None else ndim
    return bytes((0, 0, code, ndim)) + struct.pack(f">{len(shape)}I", *shape)


GOOD = head(2, 3, 4) + IMAGES.tobytes()
PACKED = gzip.compress(GOOD, mtime=0)


def flipped(data, at):
    return data[:at] + bytes((data[at] ^ 0x01,)) + data[at + 1 :]


HOSTILE = {  # content → words of the message
    "empty": (b"", "magic"),
    "three bytes": (GOOD[:3], "magic"),
    "magic only": (GOOD[:4], "axis sizes"),
    "half an axis size": (GOOD[:10], "axis sizes"),
    "header only": (GOOD[:16], "cannot hold"),
    "one byte short": (GOOD[:-1], "cannot hold|ends after"),
    "one byte long": (GOOD + b"\0", "goes on after"),
    "twice": (GOOD + GOOD, "goes on after"),
    "text": (b"<!DOCTYPE html><html>not found</html>", "starts with 3c 21"),
    "first byte set": (b"\1" + GOOD[1:], "starts with"),
    "second byte set": (GOOD[:1] + b"\1" + GOOD[2:], "starts with"),
    "unknown element": (head(2, 3, 4, code=7) + IMAGES.tobytes(), "starts with"),
    "signed bytes": (head(2, 3, 4, code=9) + IMAGES.tobytes(), "signed bytes"),
    "floats": (head(2, 3, 1, code=0x0D) + IMAGES.tobytes(), "32-bit floats"),
    "labels for images": (head(24) + IMAGES.tobytes(), "has 1 axes"),
    "four axes": (head(2, 3, 4, 1) + IMAGES.tobytes(), "has 4 axes"),
    "255 axes": (head(2, 3, 4, ndim=255) + IMAGES.tobytes(), "has 255 axes"),
    "no example": (head(0, 3, 4), "holds nothing"),
    "no pixel": (head(2, 0, 4), "holds nothing"),
    "no pixel, absurd others": (head(2**32 - 1, 2**32 - 1, 0), "holds nothing"),
    "2^96 bytes": (head(2**32 - 1, 2**32 - 1, 2**32 - 1), "above the limit"),
    "a promise beyond the file": (head(1000, 1000, 1000) + bytes(100), "cannot hold"),
    "byte order swapped": (GOOD[:4] + struct.pack("<3I", 2, 3, 4) + GOOD[16:], "above the limit"),
    "gzip, cut in its header": (PACKED[:6], "damaged or cut"),
    "gzip, cut in its data": (PACKED[:-12], "damaged or cut"),
    "gzip, cut in its checksum": (PACKED[:-6], "damaged or cut"),
    "gzip, checksum wrong": (flipped(PACKED, len(PACKED) - 8), "damaged or cut"),
    "gzip, length wrong": (flipped(PACKED, len(PACKED) - 4), "damaged or cut"),
    "gzip, method unknown": (flipped(PACKED, 2), "damaged or cut"),
    "gzip, garbage behind": (PACKED + b"garbage", "damaged or cut"),
    "gzip, content too long": (gzip.compress(GOOD + b"\0"), "goes on after"),
    "gzip, content too short": (gzip.compress(GOOD[:-1]), "ends after"),
    "gzip, two files": (PACKED + PACKED, "goes on after"),
    "gzip in gzip": (gzip.compress(PACKED), "within gzip"),
    "gzip of nothing": (gzip.compress(b""), "magic"),
    "gzip, promise beyond deflate": (gzip.compress(head(1000, 1000, 999)), "cannot hold"),
}


@pytest.mark.parametrize(("content", "words"), HOSTILE.values(), ids=HOSTILE.keys())
def test_refuses(tmp_path, content, words):
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(IdxError, match=words) as caught:
        read_idx(file, ndim=3)
    assert str(file) in str(caught.value)


@pytest.mark.parametrize("content", [GOOD, PACKED], ids=["plain", "gzip"])
def test_accepts_what_the_hostile_files_were_made_from(tmp_path, content):
    """The negative control of every case above."""
    (tmp_path / "file").write_bytes(content)
    found = read_idx(tmp_path / "file", ndim=3)
    np.testing.assert_array_equal(found, IMAGES)
    assert found.dtype == np.uint8
    assert found.flags.writeable


def test_a_bomb_is_refused_before_it_is_unpacked(tmp_path):
    """A promise above the limit, and a file that hides more than it promises."""
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    large = engine.compress(head(16, 1024, 1024))
    large += b"".join(engine.compress(bytes(1 << 20)) for _ in range(16)) + engine.flush()
    (tmp_path / "large").write_bytes(large)
    engine = zlib.compressobj(9, zlib.DEFLATED, 31)
    liar = engine.compress(GOOD)
    liar += b"".join(engine.compress(bytes(1 << 20)) for _ in range(16)) + engine.flush()
    (tmp_path / "liar").write_bytes(liar)
    tracemalloc.start()
    with pytest.raises(IdxError, match="above the limit of 1,048,576"):
        read_idx(tmp_path / "large", ndim=3, max_bytes=1 << 20)
    with pytest.raises(IdxError, match="goes on after the 24 bytes"):
        read_idx(tmp_path / "liar", ndim=3, max_bytes=1 << 20)
    refused = tracemalloc.get_traced_memory()[1]
    assert read_idx(tmp_path / "large", ndim=3).nbytes == 16 << 20  # the control: it is a real one
    accepted = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refused < 2 << 20
    assert accepted >= 16 << 20


def test_refuses_what_is_no_file(tmp_path):
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer that never comes
    for path, words in [
        (tmp_path, "not a regular file"),
        (tmp_path / "pipe", "not a regular file"),
        (tmp_path / "absent", "no such file"),
        (Path("a\0b"), "cannot be opened"),
    ]:
        with pytest.raises(IdxError, match=words):
            read_idx(path, ndim=3)


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_any_bytes_are_an_array_or_an_error(tmp_path_factory, data):
    """Damage to a good file, and free invention: an array that matches its header, or IdxError."""
    content = bytearray(data.draw(st.sampled_from([GOOD, PACKED])))
    for _ in range(data.draw(st.integers(0, 3))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        if not content:
            content = bytearray(b"\0")
    content = data.draw(st.sampled_from([bytes(content), data.draw(st.binary(max_size=64))]))
    file = tmp_path_factory.getbasetemp() / "fuzz"
    file.write_bytes(content)
    try:
        found = read_idx(file, ndim=3, max_bytes=1 << 16)
    except IdxError:
        return
    plain = content if content[:2] != b"\x1f\x8b" else gzip.decompress(content)
    assert plain == head(*found.shape) + found.tobytes()


def test_writes_what_it_reads(tmp_path):
    for name in ("a", "a.gz"):
        write_idx(tmp_path / name, IMAGES)
        np.testing.assert_array_equal(read_idx(tmp_path / name, ndim=3), IMAGES)
    assert (tmp_path / "a").read_bytes() == GOOD
    write_idx(tmp_path / "b.gz", IMAGES)
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    assert (tmp_path / "a.gz").read_bytes()[4:8] == bytes(4)  # no time in the header
    for bad in (IMAGES.astype(np.int32), IMAGES[:0], np.uint8(3)):
        with pytest.raises(IdxError, match="cannot write"):
            write_idx(tmp_path / "c", bad)


@pytest.fixture
def folder(tmp_path):
    for prefix, count in (("train", 5), ("t10k", 3)):
        pixels = np.full((count, 4, 8), count, np.uint8)
        write_idx(tmp_path / f"{prefix}-images-idx3-ubyte", pixels)
        write_idx(tmp_path / f"{prefix}-labels-idx1-ubyte", np.arange(count, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("form", ["{}-images-idx3-ubyte.gz", "{}-images.idx3-ubyte"])
def test_reads_a_folder_under_its_usual_names(folder, form):
    for prefix in ("train", "t10k"):
        old = folder / f"{prefix}-images-idx3-ubyte"
        content = read_idx(old, ndim=3)
        old.unlink()
        write_idx(folder / form.format(prefix), content)
    train, test = read_folder(folder)
    assert train.images.shape == (5, 4, 8)
    assert test.images.shape == (3, 4, 8)
    assert test.labels.tolist() == [0, 1, 2]


def test_refuses_a_folder_whose_files_disagree(folder):
    read_folder(folder)  # the control
    labels = folder / "t10k-labels-idx1-ubyte"
    write_idx(labels, np.arange(4, dtype=np.uint8))
    with pytest.raises(IdxError, match=r"3 images in .*, but 4 labels in"):
        read_folder(folder)
    write_idx(labels, np.array([1, 10, 2], np.uint8))
    with pytest.raises(IdxError, match=r"label 10 at position 1; .* 0 to 9"):
        read_folder(folder)
    read_folder(folder, classes=11)
    write_idx(labels, np.array([1, 9, 2], np.uint8))
    write_idx(folder / "t10k-images-idx3-ubyte", np.zeros((3, 4, 4), np.uint8))
    with pytest.raises(
        IdxError, match=r"training images are \(4, 8\) pixels, test images \(4, 4\)"
    ):
        read_folder(folder)


def test_says_what_it_looked_for_and_what_is_there(folder):
    (folder / "t10k-labels-idx1-ubyte").rename(folder / "labels of the test set")
    with pytest.raises(IdxError, match=r"none of t10k-labels-idx1-ubyte, .*labels of the test set"):
        read_folder(folder)
    with pytest.raises(IdxError, match="not a folder that can be read"):
        read_folder(folder / "absent")
    with pytest.raises(IdxError, match="not a folder that can be read"):
        read_folder(folder / "train-images-idx3-ubyte")


def test_needs_numpy_only():
    tree = ast.parse(Path(dualflat.learn.idx.__file__).read_text())
    names = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import)
        for alias in node.names
    }
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    outside = {name for name in names if name.partition(".")[0] not in sys.stdlib_module_names}
    assert outside == {"numpy"}
