"""Files and folders appear whole or not at all."""

import errno
import json
import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from deeplab_tf.errors import InputError
from deeplab_tf.files import (
    atomic_file,
    atomic_folder,
    read_json,
    remove_leftovers,
    write_json,
)


@pytest.fixture
def umask_of_022():
    """Permissions below are those of the usual umask, whatever the machine's is."""
    old = os.umask(0o022)
    yield
    os.umask(old)


def names(folder: Path) -> list[str]:
    """All entries of a folder, hidden ones too: a left-over temporary file would be one."""
    return sorted(path.name for path in folder.iterdir())


def os_error(code: int):
    """A function that fails as the operating system does."""

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    return fail


def test_a_file_appears_with_its_content_and_nothing_else(tmp_path):
    with atomic_file(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        assert not (tmp_path / "a.txt").exists()
    assert (tmp_path / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["a.txt"]


def test_missing_parent_folders_are_made(tmp_path):
    with atomic_file(tmp_path / "b" / "c" / "a.txt") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "b" / "c" / "a.txt").read_text() == "new"


def test_the_temporary_file_is_hidden_beside_the_target_and_has_the_suffix(tmp_path):
    with atomic_file(tmp_path / "a.png", suffix=".png") as temporary:
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".") and temporary.suffix == ".png"


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_file_and_no_temporary_one(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error):
        with atomic_file(path) as temporary:
            temporary.write_text("half of the new")
            raise error
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_a_file_gets_the_permissions_that_any_new_file_has(tmp_path, umask_of_022):
    with atomic_file(tmp_path / "a.txt"):
        pass
    assert stat.S_IMODE((tmp_path / "a.txt").stat().st_mode) == 0o644


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_in_words_and_the_old_file_stays(tmp_path, code):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match="a.txt: the disk is full"):
        with atomic_file(path):
            os_error(code)()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_place_that_may_not_be_written_is_said_in_words(tmp_path, monkeypatch, code):
    monkeypatch.setattr("tempfile.mkstemp", os_error(code))
    with pytest.raises(InputError, match="a.txt: no permission"):
        with atomic_file(tmp_path / "a.txt"):
            pass


def test_a_relative_path_is_told_from_others_all_the_same(tmp_path, monkeypatch):
    def fail(dir, **kwargs):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / ".a.txt.x"))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.mkstemp", fail)
    with pytest.raises(InputError, match="a.txt: no permission"):
        with atomic_file("a.txt"):
            pass


def test_an_unreadable_input_is_not_taken_for_the_output(tmp_path):
    def read_elsewhere():
        raise PermissionError(errno.EACCES, "Permission denied", "/elsewhere/photo.jpg")

    with pytest.raises(PermissionError, match="photo.jpg"):
        with atomic_file(tmp_path / "a.txt"):
            read_elsewhere()


def test_a_file_in_the_place_of_a_parent_folder_is_said_in_words(tmp_path):
    (tmp_path / "b").write_text("a file")
    with pytest.raises(InputError, match="is a file, not a folder"):
        with atomic_file(tmp_path / "b" / "c" / "a.txt"):
            pass
    with pytest.raises(InputError, match="is a file, not a folder"):
        with atomic_file(tmp_path / "b" / "a.txt"):
            pass
    assert (tmp_path / "b").read_text() == "a file"


def test_a_folder_in_the_place_of_the_file_is_said_in_words(tmp_path):
    (tmp_path / "a.txt").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        with atomic_file(tmp_path / "a.txt"):
            pass
    assert names(tmp_path) == ["a.txt"]


def test_another_error_of_the_operating_system_passes_as_it_is(tmp_path):
    with pytest.raises(OSError, match="Input/output error"):
        with atomic_file(tmp_path / "a.txt"):
            os_error(errno.EIO)()


def test_a_folder_appears_with_all_its_files(tmp_path):
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "a.txt").write_text("new")
        assert not (tmp_path / "run").exists()
    assert (tmp_path / "run" / "a.txt").read_text() == "new"
    assert names(tmp_path) == ["run"]


def test_a_folder_replaces_the_old_one_whole(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old")
    with atomic_folder(tmp_path / "run") as temporary:
        (temporary / "new.txt").write_text("new")
        assert names(tmp_path / "run") == ["old.txt"]
    assert names(tmp_path / "run") == ["new.txt"]
    assert names(tmp_path) == ["run"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_folder_and_no_temporary_one(tmp_path, error):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old")
    with pytest.raises(error):
        with atomic_folder(tmp_path / "run") as temporary:
            (temporary / "new.txt").write_text("new")
            raise error
    assert (tmp_path / "run" / "old.txt").read_text() == "old"
    assert names(tmp_path) == ["run"]


def test_a_full_disk_leaves_the_old_folder(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old")
    with pytest.raises(InputError, match="run: the disk is full"):
        with atomic_folder(tmp_path / "run"):
            os_error(errno.ENOSPC)()
    assert names(tmp_path / "run") == ["old.txt"]
    assert names(tmp_path) == ["run"]


def test_a_failing_swap_puts_the_old_folder_back(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "old.txt").write_text("old")
    replace, calls = os.replace, []

    def fail_at_second(source, target):
        calls.append(source)
        if len(calls) == 2:
            os_error(errno.EIO)()
        replace(source, target)

    monkeypatch.setattr("os.replace", fail_at_second)
    with pytest.raises(OSError, match="Input/output error"):
        with atomic_folder(tmp_path / "run"):
            pass
    assert names(tmp_path / "run") == ["old.txt"]
    assert names(tmp_path) == ["run"]


def test_a_folder_can_be_read_by_others(tmp_path, umask_of_022):
    with atomic_folder(tmp_path / "run"):
        pass
    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o755


def test_a_file_in_the_place_of_the_folder_stays(tmp_path):
    (tmp_path / "run").write_text("a file")
    with pytest.raises(InputError, match="run is a file; name a folder"):
        with atomic_folder(tmp_path / "run"):
            pass
    assert (tmp_path / "run").read_text() == "a file"


def test_json_comes_back_as_written(tmp_path):
    value = {"classes": ["background", "véhicule"], "ignore_label": None, "share": 0.25}
    write_json(tmp_path / "a.json", value)
    assert read_json(tmp_path / "a.json") == value
    assert (tmp_path / "a.json").read_text(encoding="utf-8").endswith("}\n")


def test_a_value_that_json_has_no_word_for_leaves_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"a": object()})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert names(tmp_path) == ["a.json"]


def test_json_is_utf8_whatever_the_locale(tmp_path):
    # Python warns where a file is opened in the locale's encoding; here that is an error.
    code = (
        "from deeplab_tf.files import *; write_json('a.json', 'Müller'); print(read_json('a.json'))"
    )
    strict = ["-X", "warn_default_encoding", "-W", "error::EncodingWarning"]
    subprocess.run([sys.executable, *strict, "-c", code], cwd=tmp_path, check=True)
    assert "Müller".encode() in (tmp_path / "a.json").read_bytes()


@pytest.mark.parametrize("content", [b'{"a": 1', b"\xff\xfe\x00", b"", b"[" * 100_000, b"1" * 5000])
def test_a_broken_json_file_is_named(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match="a.json isn't valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_missing_json_file_is_named(tmp_path):
    with pytest.raises(InputError, match="a.json: no such file"):
        read_json(tmp_path / "a.json")


def test_a_folder_in_the_place_of_a_json_file_is_said_in_words(tmp_path):
    with pytest.raises(InputError, match="is a folder; name a JSON file"):
        read_json(tmp_path)


def test_what_a_killed_writer_left_is_removed_and_nothing_else(tmp_path):
    killed = []
    for writer, name in ((atomic_file, "step-1.npz"), (atomic_folder, "best")):
        unfinished = writer(tmp_path / name)
        unfinished.__enter__()  # never left, as when the process is killed
        killed.append(unfinished)  # or its end would run when the object is dropped
    for name in ("step-1.npz", ".hidden", ".step-one"):
        (tmp_path / name).touch()
    assert len(names(tmp_path)) == 5
    remove_leftovers(tmp_path, "step-*.npz", "best")
    assert names(tmp_path) == [".hidden", ".step-one", "step-1.npz"]
