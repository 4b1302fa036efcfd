"""Files are whole or not there at all; folders come from the environment."""

from __future__ import annotations

import json
import os
import stat
import time
from pathlib import Path

import pytest

from hw4fast import files
from hw4fast.errors import UsageError, UserError
from hw4fast.files import cache_folder, data_folder, free_sibling, write_json, write_text, writing


def test_a_new_file_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "deep" / "table.csv"
    with writing(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".csv" and not path.exists()
        temporary.write_bytes(b"1,2")
    assert path.read_bytes() == b"1,2" and list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_the_old_file_stays_when_the_body_fails(error, tmp_path):
    path = tmp_path / "kept.txt"
    path.write_text("old")
    with pytest.raises(error), writing(path) as temporary:
        temporary.write_text("half of the n")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_old_file_stays_when_the_disk_fails(tmp_path, monkeypatch):
    def no_space(_):
        raise OSError(28, "No space left on device")

    write_text(tmp_path / "kept.txt", "old")
    monkeypatch.setattr(files.os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_text(tmp_path / "kept.txt", "new")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("kept.txt", "old")]


def test_a_body_that_replaces_the_temporary_file(tmp_path):
    """Some writers (safetensors) rename a file of their own over the one that they are given."""
    with writing(tmp_path / "a.bin") as temporary:
        other = temporary.with_suffix(".tmp")
        other.write_bytes(b"new")
        other.chmod(0o600)
        mode = temporary.stat().st_mode
        other.replace(temporary)
    assert (tmp_path / "a.bin").stat().st_mode == mode
    assert [path.name for path in tmp_path.iterdir()] == ["a.bin"]


def test_it_is_synced_before_it_is_named(tmp_path, monkeypatch):
    seen, sync = [], os.fsync

    def noted(handle):
        seen.append((tmp_path / "a.txt").exists())
        sync(handle)

    monkeypatch.setattr(files.os, "fsync", noted)
    write_text(tmp_path / "a.txt", "text")
    assert seen == [False]


@pytest.mark.skipif(os.name != "posix", reason="umask is POSIX")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(umask, mode, tmp_path):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "a.txt", "text")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == mode


@pytest.mark.skipif(os.name != "posix", reason="modes are POSIX")
@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755, 0o444])
def test_a_file_that_is_replaced_keeps_its_permissions(mode, tmp_path):
    path, link = tmp_path / "a.txt", tmp_path / "link.txt"
    path.write_text("old")
    path.chmod(mode)
    link.symlink_to(path)
    for name in (path, link):
        with writing(name) as temporary:
            temporary.write_text("new")
            assert stat.S_IMODE(temporary.stat().st_mode) & ~mode & 0o177 == 0  # open to nobody else on the way
        assert stat.S_IMODE(path.stat().st_mode) == mode and path.read_text() == "new"


def test_text_is_utf8_and_json_is_strict(tmp_path):
    write_text(tmp_path / "a.txt", "λ·Σ|w|\n")
    assert (tmp_path / "a.txt").read_bytes() == "λ·Σ|w|\n".encode()
    write_json(tmp_path / "a.json", {"β": [1, None]})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"β": [1, None]}
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "b.json", float("nan"))
    assert not (tmp_path / "b.json").exists()


def test_free_siblings(tmp_path):
    wanted = tmp_path / "run"
    assert free_sibling(wanted) == wanted
    wanted.mkdir()
    assert free_sibling(str(wanted)) == tmp_path / "run-2"
    (tmp_path / "run-2").write_text("a file counts, too")
    (tmp_path / "run-4").mkdir()
    assert free_sibling(wanted) == tmp_path / "run-3"


@pytest.mark.parametrize("place", [".", "..", "/", "runs/.."])
def test_what_has_no_name_has_no_sibling(place):
    with pytest.raises(UsageError, match="is no name for a new folder"):
        free_sibling(place)


def test_a_dangling_link_is_not_free(tmp_path):
    (tmp_path / "run").symlink_to(tmp_path / "gone")
    assert free_sibling(tmp_path / "run") == tmp_path / "run-2"


def test_folders_from_the_environment(tmp_path, monkeypatch):
    for name in ("HW4FAST_DATA", "HW4FAST_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert data_folder() is None and cache_folder() == tmp_path / ".cache" / "hw4fast"
    monkeypatch.setenv("XDG_CACHE_HOME", "/cache")
    assert cache_folder() == Path("/cache/hw4fast")
    monkeypatch.setenv("HW4FAST_CACHE", "/mine")
    monkeypatch.setenv("HW4FAST_DATA", "/data")
    assert (cache_folder(), data_folder()) == (Path("/mine"), Path("/data"))


def test_the_umask_is_never_touched(tmp_path, monkeypatch):
    """It belongs to the whole process: another thread would make its files with ours."""
    monkeypatch.setattr(files.os, "umask", lambda _: pytest.fail("umask was set"))
    write_text(tmp_path / "a.txt", "text")


def test_a_link_is_followed(tmp_path):
    real, link = tmp_path / "deep" / "real.txt", tmp_path / "link.txt"
    link.symlink_to("deep/real.txt")
    for text in ("new", "newer"):  # the link leads nowhere at first
        with writing(link) as temporary:
            assert temporary.parent == real.parent
            temporary.write_text(text)
        assert link.is_symlink() and not real.is_symlink() and real.read_text() == text
    assert [path.name for path in real.parent.iterdir()] == ["real.txt"]


@pytest.mark.parametrize("linked", [False, True])
def test_what_is_no_regular_file_stays(linked, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link-pipe").symlink_to("pipe")
    (tmp_path / "link-folder").symlink_to("folder")
    for name in ("pipe", "folder"):
        path = tmp_path / (f"link-{name}" if linked else name)
        with pytest.raises(UserError, match=rf"'{path}' is a {name}.*; name another one"):
            write_text(path, "text")
    with pytest.raises(UserError, match="a pipe, a device or the like"):
        write_text("/dev/null", "text")
    assert (tmp_path / "pipe").is_fifo() and len(list(tmp_path.iterdir())) == 4


def test_what_a_killed_process_left_is_removed_after_an_hour(tmp_path):
    left, fresh, strange = (
        tmp_path / name for name in (".w.0123abcd.hw4fast-part.bin", ".w.0123abce.hw4fast-part.bin", ".w-0123abcd.bin")
    )
    for path in (left, fresh, strange):
        path.write_bytes(b"half")
        age = 3500 if path == fresh else 3700
        os.utime(path, (time.time() - age, time.time() - age))
    write_text(tmp_path / "w.bin", "text")
    assert sorted(path.name for path in tmp_path.iterdir()) == [strange.name, fresh.name, "w.bin"]


@pytest.mark.parametrize("name", ["w.bin", "w", "w.x.safetensors", ".hidden", "a\nb.png"])
def test_the_names_of_temporary_files_are_those_that_are_swept(name, tmp_path):
    with pytest.raises(FileNotFoundError), writing(tmp_path / name) as temporary:
        os.utime(temporary, (0, 0))
        files._sweep.cache_clear()
        files._sweep(tmp_path)
        assert not temporary.exists()
    assert list(tmp_path.iterdir()) == []
