"""Labelled images in the MNIST format (IDX), read as if a stranger had written the file.

An IDX file of unsigned bytes is

    00 00 08 ndim | ndim sizes, big-endian uint32 | the bytes, last axis fastest

plain or gzipped. The header is a promise, and these functions hold the file to it: exactly the
promised bytes, no fewer and no more, and nothing allocated that the file cannot fill. A megabyte of
gzip can claim a gigabyte; so the promise is weighed against `max_bytes` and against the size of
the file before any memory is asked for.

Needs the standard library and numpy, nothing else.
"""

import contextlib
import gzip
import math
import os
import stat
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

_UNSIGNED_BYTE = 0x08
_ELEMENTS = {
    0x08: "unsigned bytes",
    0x09: "signed bytes",
    0x0B: "16-bit integers",
    0x0C: "32-bit integers",
    0x0D: "32-bit floats",
    0x0E: "64-bit floats",
}
_GZIP = b"\x1f\x8b"
_DEFLATE_RATIO = 1032  # no deflate stream expands by more (258 bytes from a 2-bit code pair)
_CHUNK = 1 << 20


class IdxError(ValueError):
    """A file or folder is not what the MNIST format promises. The message says where and why."""


class Labelled(NamedTuple):
    """Images and what they show.

    Attributes:
      images: uint8, shape (n, height, width).
      labels: uint8, shape (n,).
    """

    images: np.ndarray
    labels: np.ndarray


def read_idx(path: str | os.PathLike, *, ndim: int, max_bytes: int = 1 << 30) -> np.ndarray:
    """The array in one IDX file of unsigned bytes, plain or gzipped (told by content, not name).

    Args:
      path: a regular file.
      ndim: how many axes it must have: 3 for images, 1 for labels.
      max_bytes: the most data that is accepted.

    Returns:
      uint8, an array of `ndim` axes, none of them empty, that owns its memory.

    Raises:
      IdxError: the file is missing, not a regular file, not IDX, of another element type or number
        of axes, empty, larger than `max_bytes`, shorter or longer than its header promises, or
        damaged.
    """
    path = Path(path)
    with _opened(path) as (stream, most):
        head = _exactly(stream, 4, path, "the four magic bytes")
        if head[:2] == _GZIP:
            raise IdxError(f"{path}: gzip within gzip; unpack it once.")
        if head[:2] != b"\0\0" or head[2] not in _ELEMENTS:
            raise IdxError(
                f"{path}: starts with {head.hex(' ')}, but an IDX file of unsigned bytes with"
                f" {ndim} axes starts with 00 00 08 {ndim:02x}. Is this another kind of file?"
            )
        if head[2] != _UNSIGNED_BYTE:
            raise IdxError(
                f"{path}: holds {_ELEMENTS[head[2]]} (code {head[2]:02x});"
                " images and labels are unsigned bytes (code 08)."
            )
        if head[3] != ndim:
            raise IdxError(
                f"{path}: has {head[3]} axes where {ndim} were expected."
                " Images have 3, labels have 1: are two files swapped?"
            )
        sizes = np.frombuffer(_exactly(stream, 4 * ndim, path, "the axis sizes"), ">u4")
        shape = tuple(int(size) for size in sizes)
        promised = math.prod(shape)
        if promised == 0:
            raise IdxError(f"{path}: the header says shape {shape}, which holds nothing.")
        if promised > max_bytes:
            raise IdxError(
                f"{path}: the header promises {promised:,} bytes (shape {shape}), above the limit"
                f" of {max_bytes:,}. Raise max_bytes if the file is to be trusted."
            )
        if promised > most:
            raise IdxError(
                f"{path}: the header promises {promised:,} bytes (shape {shape}), but the file"
                f" cannot hold more than {max(most, 0):,}. It is truncated, or not what it says."
            )
        data = np.empty(promised, np.uint8)
        view, found = memoryview(data.data), 0
        while found < promised:
            count = stream.readinto(view[found : found + _CHUNK])
            if not count:
                raise IdxError(
                    f"{path}: ends after {found:,} of the {promised:,} bytes that its header"
                    f" promises (shape {shape}). It is truncated; fetch it again."
                )
            found += count
        if stream.read(1):  # for gzip this read also verifies the checksum
            raise IdxError(
                f"{path}: goes on after the {promised:,} bytes that its header promises"
                f" (shape {shape}). It is not a whole and single IDX file."
            )
    return data.reshape(shape)


def read_folder(
    folder: str | os.PathLike, *, classes: int = 10, max_bytes: int = 1 << 30
) -> tuple[Labelled, Labelled]:
    """The training and the test examples of a folder with the four MNIST files.

    Looks for `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the same with `t10k`; each
    with `.` for the second `-`, or with `.gz` at the end, also.

    Args:
      folder: where the files are.
      classes: labels must be below it.
      max_bytes: the most data that is accepted from one file.

    Returns:
      (train, test).

    Raises:
      IdxError: a file is missing or broken (see `read_idx`), the counts of images and labels
        differ, a label is not below `classes`, or test images have another size.
    """
    folder = Path(folder)
    try:
        present = sorted(entry.name for entry in folder.iterdir())
    except OSError as error:
        raise IdxError(f"{folder}: not a folder that can be read ({error.strerror}).") from error

    def read(prefix: str) -> Labelled:
        image_file = _find(folder, present, prefix, "images", 3)
        label_file = _find(folder, present, prefix, "labels", 1)
        images = read_idx(image_file, ndim=3, max_bytes=max_bytes)
        labels = read_idx(label_file, ndim=1, max_bytes=max_bytes)
        if len(images) != len(labels):
            raise IdxError(
                f"{folder}: {len(images):,} images in {image_file.name}, but {len(labels):,}"
                f" labels in {label_file.name}. They are not of one set."
            )
        if labels.max() >= classes:
            row = int(np.argmax(labels >= classes))
            raise IdxError(
                f"{label_file}: label {labels[row]} at position {row};"
                f" labels of {classes} classes are 0 to {classes - 1}."
            )
        return Labelled(images, labels)

    train, test = read("train"), read("t10k")
    if train.images.shape[1:] != test.images.shape[1:]:
        raise IdxError(
            f"{folder}: training images are {train.images.shape[1:]} pixels, test images"
            f" {test.images.shape[1:]}. They are not of one set."
        )
    return train, test


def write_idx(path: str | os.PathLike, array: np.ndarray) -> None:
    """Write an array of unsigned bytes as IDX; gzipped, with the same bytes every time, for `.gz`.

    Raises:
      IdxError: the array is not uint8, has no axis or an empty one, or is too large for the header.
    """
    path, array = Path(path), np.asarray(array)
    if array.dtype != np.uint8:
        raise IdxError(f"{path}: cannot write {array.dtype}; only unsigned bytes (uint8).")
    if not 1 <= array.ndim <= 255 or not array.size or max(array.shape) >= 1 << 32:
        raise IdxError(f"{path}: cannot write shape {array.shape}; every axis must hold something.")
    head = bytes((0, 0, _UNSIGNED_BYTE, array.ndim)) + np.array(array.shape, ">u4").tobytes()
    with open(path, "wb") as file, contextlib.ExitStack() as stack:
        # Neither the name nor the time enters the gzip header: equal arrays make equal files.
        stream = (
            stack.enter_context(gzip.GzipFile("", "wb", compresslevel=9, fileobj=file, mtime=0))
            if path.suffix == ".gz"
            else file
        )
        stream.write(head)
        stream.write(array.tobytes())


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, int]]:
    """The file's content, unpacked, and the most bytes that can follow the magic in it."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # opening a pipe would wait for ever
            raise IdxError(f"{path}: not a regular file.")
        file = open(path, "rb")  # noqa: SIM115  closed below
    except FileNotFoundError as error:
        raise IdxError(f"{path}: no such file.") from error
    except (OSError, ValueError) as error:  # ValueError: a name with a NUL in it
        if isinstance(error, IdxError):
            raise
        raise IdxError(f"{path}: cannot be opened ({error}).") from error
    with file:
        size = os.fstat(file.fileno()).st_size
        packed = file.read(2) == _GZIP
        file.seek(0)
        try:
            if packed:
                with gzip.GzipFile(fileobj=file, mode="rb") as stream:
                    yield stream, _DEFLATE_RATIO * size
            else:
                yield file, size
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise IdxError(
                f"{path}: the gzip stream is damaged or cut short ({error}). Fetch it again."
            ) from error
        except OSError as error:
            raise IdxError(f"{path}: cannot be read ({error}).") from error


def _exactly(stream: BinaryIO, count: int, path: Path, what: str) -> bytes:
    data = stream.read(count)
    if len(data) != count:
        raise IdxError(f"{path}: ends within {what}; this is no IDX file, or a truncated one.")
    return data


def _find(folder: Path, present: list[str], prefix: str, kind: str, ndim: int) -> Path:
    names = [
        f"{prefix}-{kind}{mark}idx{ndim}-ubyte{end}" for end in ("", ".gz") for mark in ("-", ".")
    ]
    for name in names:
        if name in present:
            return folder / name
    shown = ", ".join(present[:12]) + (f" and {len(present) - 12} more" if present[12:] else "")
    raise IdxError(
        f"{folder}: none of {', '.join(names)} is here; the folder holds {shown or 'nothing'}."
    )
