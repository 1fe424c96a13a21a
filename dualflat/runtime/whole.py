"""What counts as whole: a folder whose every byte is the one that was written.

A folder is *sealed* when each of its files and folders has been synced to the disk and a manifest,
written last, names every file with its size and SHA-256. Whoever reads a sealed folder compares the
bytes first and parses them afterwards, because neither array stores nor compiled programs notice a
flipped bit: they load, and the numbers are wrong.

The order of the operations is what survives a crash or a power cut:

    write → sync files → sync folders → manifest (written aside, synced, renamed) → sync folder
          → rename the folder to its final name → sync the parent

so that a final name never stands for half a folder. Removal goes the other way round: the folder
loses its name first, by one rename, and its files after that.

The manifest is two lines of text. The first holds the SHA-256 of the second, so that damage to the
manifest itself is seen before its JSON is parsed:

    sha256 <64 hexadecimal digits>
    {"format": 1, "files": {"<path>": [<size>, "<sha256>"], …}, "folders": ["<path>", …]}
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
from pathlib import Path

MANIFEST = "manifest.json"
PARTIAL = ".partial"  # being written
REMOVING = ".removing"  # on its way out: already without its name

_FORMAT = 1
_SEAL = re.compile(rb"sha256 ([0-9a-f]{64})\n")


class NotWholeError(Exception):
    """A folder is not what was sealed. The words name the file and what is wrong with it."""


def sync(path: Path) -> None:
    """Bring a file's bytes, or a folder's names, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def make_folder(path: Path) -> None:
    """Create `path` and its missing ancestors, so that they survive a power cut."""
    if path.is_dir():
        return
    make_folder(path.parent)
    with contextlib.suppress(FileExistsError):  # another process may be as quick
        os.mkdir(path)
    if not path.is_dir():
        raise NotADirectoryError(f"{path} is a file where a folder is wanted")
    sync(path.parent)


def write_file(path: Path, data: bytes) -> None:
    """Write `path` so that it holds either what it held before or all of `data`, synced."""
    aside = path.with_name(path.name + PARTIAL)
    with open(aside, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(aside, path)
    sync(path.parent)


def seal(folder: Path) -> None:
    """Sync everything under `folder` and write its manifest, last.

    Raises:
      NotWholeError: something in the folder is neither a regular file nor a folder.
      OSError: a file could not be read, synced or written.
    """
    files, folders = _contents(folder)
    entries = {}
    for name in sorted(files):
        with open(folder / name, "rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entries[name] = [os.fstat(file.fileno()).st_size, digest]
            os.fsync(file.fileno())
    for name in sorted(folders, reverse=True):  # the deepest first
        sync(folder / name)
    sync(folder)
    body = json.dumps(
        {"format": _FORMAT, "files": entries, "folders": sorted(folders)}, sort_keys=True
    ).encode()
    write_file(folder / MANIFEST, _signed(body))


def publish(partial: Path, final: Path) -> None:
    """Give a sealed folder its final name, durably."""
    os.rename(partial, final)
    sync(final.parent)


def remove(folder: Path) -> None:
    """Remove `folder`: first its name, in one durable step, and then its files.

    Once the name is gone nobody can take what is left for a whole folder, so files that resist
    (a network file system holds open ones back) are left to the next `sweep`.
    """
    doomed = folder.with_name(folder.name + REMOVING)
    shutil.rmtree(doomed, ignore_errors=True)
    os.rename(folder, doomed)
    sync(folder.parent)
    shutil.rmtree(doomed, ignore_errors=True)


def entries(folder: Path) -> dict[str, tuple[int, str]]:
    """What the manifest of `folder` promises: path → (size, SHA-256). Reads the manifest alone.

    Raises:
      NotWholeError: there is no manifest, or it is not the one that was written.
    """
    return _manifest(folder)[0]


def read(folder: Path, name: str) -> bytes:
    """One file of a sealed folder: the very bytes that were compared with the manifest.

    Raises:
      NotWholeError: the manifest or the file is not what was sealed.
    """
    listed = entries(folder)
    if name not in listed:
        raise NotWholeError(f"{folder / MANIFEST} does not list {name}")
    size, digest = listed[name]
    path = folder / name
    _check_size(path, size)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise NotWholeError(f"{path} cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != digest:
        raise NotWholeError(_changed(path))
    return data


def verify(folder: Path) -> None:
    """Compare every byte under `folder` with its manifest.

    Raises:
      NotWholeError: a file is missing, extra, of another size or has other bytes; or the manifest
        itself is not the one that was written.
    """
    listed, listed_folders = _manifest(folder)
    try:
        files, folders = _contents(folder)
    except OSError as error:
        raise NotWholeError(f"{folder} cannot be listed: {error.strerror or error}") from error
    files.discard(MANIFEST)
    for found, wanted in ((files, listed.keys()), (folders, listed_folders)):
        if missing := sorted(wanted - found):
            raise NotWholeError(f"{folder / missing[0]} is missing")
        if extra := sorted(found - wanted):
            raise NotWholeError(f"{folder / extra[0]} does not belong there: it was not sealed")
    for name, (size, _) in listed.items():  # cheap, so all of them before the first byte
        _check_size(folder / name, size)
    for name, (_, digest) in listed.items():
        path = folder / name
        try:
            with open(path, "rb") as file:
                found_digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise NotWholeError(f"{path} cannot be read: {error.strerror or error}") from error
        if found_digest != digest:
            raise NotWholeError(_changed(path))


def _changed(path: Path) -> str:
    return f"{path} has other bytes than were written: its SHA-256 is not the manifest's"


def _signed(body: bytes) -> bytes:
    return b"sha256 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def _manifest(folder: Path) -> tuple[dict[str, tuple[int, str]], set[str]]:
    path = folder / MANIFEST
    try:
        text = path.read_bytes()
    except FileNotFoundError as error:
        raise NotWholeError(f"{path} is missing, so nothing vouches for the folder") from error
    except OSError as error:
        raise NotWholeError(f"{path} cannot be read: {error.strerror or error}") from error
    seal_line = _SEAL.match(text)
    if seal_line is None:
        raise NotWholeError(f"{path} does not begin with its own SHA-256: torn, or not ours")
    body = text[seal_line.end() :]
    if hashlib.sha256(body).hexdigest().encode() != seal_line[1]:
        raise NotWholeError(f"{path} has other bytes than were written: it fails its own SHA-256")
    held = json.loads(body)
    if held.get("format") != _FORMAT:
        raise NotWholeError(
            f"{path} has format {held.get('format')!r}, this version reads {_FORMAT}:"
            " it was written by another version of dualflat"
        )
    return {name: (size, digest) for name, (size, digest) in held["files"].items()}, set(
        held["folders"]
    )


def _check_size(path: Path, size: int) -> None:
    try:
        found = os.lstat(path).st_size
    except FileNotFoundError as error:
        raise NotWholeError(f"{path} is missing") from error
    except OSError as error:
        raise NotWholeError(f"{path} cannot be read: {error.strerror or error}") from error
    if found != size:
        raise NotWholeError(f"{path} holds {found} bytes, {size} were written")


def _contents(folder: Path) -> tuple[set[str], set[str]]:
    """Files and folders under `folder`, as relative paths with `/`."""
    files, folders = set(), set()
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        with os.scandir(folder / inside) as found:
            for entry in found:
                name = f"{inside}/{entry.name}" if inside else entry.name
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISDIR(mode):
                    folders.add(name)
                    waiting.append(name)
                elif stat.S_ISREG(mode):
                    files.add(name)
                else:
                    raise NotWholeError(
                        f"{folder / name} is neither a regular file nor a folder: nothing vouches"
                        " for what it points to"
                    )
    return files, folders
