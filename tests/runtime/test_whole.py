"""What counts as whole: every kind of damage is seen, and every crash leaves old or new."""

import contextlib
import os
import shutil

import pytest

from dualflat.runtime import whole

FILES = {"a": b"alpha", "inner/b": b"beta" * 40, "inner/deep/c": b""}


def make(folder):
    for name, data in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    whole.seal(folder)
    return folder


@pytest.fixture
def sealed(tmp_path):
    return make(tmp_path / "sealed")


def test_an_undamaged_folder_is_whole(sealed):
    whole.verify(sealed)
    assert whole.entries(sealed).keys() == FILES.keys()
    assert {name: whole.read(sealed, name) for name in FILES} == FILES


def test_every_bit_of_every_file_is_vouched_for(sealed):
    names = [*FILES, whole.MANIFEST]
    flipped = 0
    for name in names:
        data = (sealed / name).read_bytes()
        for bit in range(
            0, 8 * len(data), 1 if len(data) < 300 else 7
        ):  # 7: every bit of a byte in turn
            damaged = bytearray(data)
            damaged[bit // 8] ^= 1 << bit % 8
            (sealed / name).write_bytes(damaged)
            with pytest.raises(whole.NotWholeError, match=name):
                whole.verify(sealed)
            flipped += 1
        (sealed / name).write_bytes(data)
    assert flipped > 1500
    whole.verify(sealed)


@pytest.mark.parametrize("name", [*FILES, whole.MANIFEST])
def test_truncated_grown_and_missing_files_are_seen(sealed, name):
    data = (sealed / name).read_bytes()
    for keep in range(0, len(data), 1 + len(data) // 50):
        (sealed / name).write_bytes(data[:keep])
        with pytest.raises(whole.NotWholeError, match=name):
            whole.verify(sealed)
    (sealed / name).write_bytes(data + b"\0")
    with pytest.raises(whole.NotWholeError, match=name):
        whole.verify(sealed)
    (sealed / name).unlink()
    with pytest.raises(whole.NotWholeError, match=r"missing"):
        whole.verify(sealed)
    (sealed / name).write_bytes(data)
    whole.verify(sealed)


def swap(folder):
    os.rename(folder / "a", folder / "x")
    os.rename(folder / "inner/b", folder / "a")
    os.rename(folder / "x", folder / "inner/b")


def add_file(folder):
    (folder / "inner/extra").write_bytes(b"")


def add_folder(folder):
    (folder / "empty").mkdir()


def lose_folder(folder):
    shutil.rmtree(folder / "inner/deep")


def link(folder):
    (folder / "a").rename(folder.parent / "a")
    (folder / "a").symlink_to(folder.parent / "a")


def other_manifest(folder):
    other = make(folder.parent / "other")
    (other / "a").write_bytes(b"ALPHA")
    (other / whole.MANIFEST).unlink()
    whole.seal(other)
    shutil.copy(other / whole.MANIFEST, folder / whole.MANIFEST)


@pytest.mark.parametrize("damage", [swap, add_file, add_folder, lose_folder, link, other_manifest])
def test_misplaced_things_are_seen(sealed, damage):
    damage(sealed)
    with pytest.raises(whole.NotWholeError):
        whole.verify(sealed)


def test_a_manifest_of_another_version_says_so(sealed):
    body = b'{"files": {}, "folders": [], "format": 2}'
    (sealed / whole.MANIFEST).write_bytes(whole._signed(body))
    with pytest.raises(whole.NotWholeError, match=r"format 2, this version reads 1"):
        whole.verify(sealed)


def test_links_cannot_be_sealed(tmp_path):
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(whole.NotWholeError, match="neither a regular file nor a folder"):
        whole.seal(tmp_path)


def test_everything_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    """A power cut loses whatever was not synced, so the order of the calls is the promise."""
    synced, log = set(), []
    fsync, rename = os.fsync, os.rename

    def recording_fsync(handle):
        fsync(handle)
        synced.add(os.fstat(handle).st_ino)
        log.append(("fsync", os.fstat(handle).st_ino))

    def recording_rename(old, new):
        log.append(("rename", os.path.basename(new), frozenset(synced)))
        rename(old, new)

    partial, final = tmp_path / "1.partial", tmp_path / "1"
    monkeypatch.setattr(os, "fsync", recording_fsync)
    monkeypatch.setattr(os, "rename", recording_rename)
    make(partial)
    contents = {
        os.stat(path).st_ino
        for path in (partial, *partial.rglob("*"))
        if path.name != whole.MANIFEST
    }
    manifest = os.stat(partial / whole.MANIFEST).st_ino
    whole.publish(partial, final)
    (named_manifest, before_manifest), (named_final, before_final) = [
        entry[1:] for entry in log if entry[0] == "rename"
    ]
    assert (named_manifest, named_final) == (whole.MANIFEST, "1")
    assert contents | {manifest} <= before_manifest
    assert contents | {manifest} <= before_final
    last = [entry[1] for entry in log]
    assert last[-1] == os.stat(tmp_path).st_ino  # the parent, after the rename
    between = last[last.index(whole.MANIFEST) + 1 : last.index("1")]
    assert os.stat(final).st_ino in between  # the manifest's name, before the folder's


class PowerCutError(Exception):
    pass


class Power:
    """From the n-th call on, nothing reaches the disk any more: what a crash leaves behind."""

    def __init__(self, monkeypatch, calls):
        self.left = calls
        for name in ("open", "rename", "fsync", "mkdir", "unlink", "rmdir", "replace"):
            monkeypatch.setattr(os, name, self.until(getattr(os, name)))

    def until(self, act):
        def acting(*args, **kwargs):
            if self.left <= 0:
                raise PowerCutError
            self.left -= 1
            return act(*args, **kwargs)

        return acting


@pytest.mark.parametrize("calls", range(20))
def test_a_removed_folder_is_never_half_believed(sealed, calls, monkeypatch):
    with monkeypatch.context() as patch:
        Power(patch, calls)
        with contextlib.suppress(PowerCutError):
            whole.remove(sealed)
    if sealed.exists():
        whole.verify(sealed)
    else:
        assert calls > 0  # the very first operation takes the name away


def test_write_file_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    path = tmp_path / "file"
    seen = set()
    for calls in range(8):
        path.write_bytes(b"old")
        with monkeypatch.context() as patch:
            Power(patch, calls)
            with contextlib.suppress(PowerCutError):
                whole.write_file(path, b"new, and longer")
        seen.add(path.read_bytes())
    assert seen == {b"old", b"new, and longer"}


def test_folders_are_made_durably_and_files_are_not_folders(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(whole, "sync", synced.append)
    whole.make_folder(tmp_path / "a/b/c")
    assert synced == [tmp_path, tmp_path / "a", tmp_path / "a/b"]
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(NotADirectoryError, match="is a file where a folder is wanted"):
        whole.make_folder(tmp_path / "file")
