"""Files and folders that appear whole or not at all, and locks on folders."""

import errno
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from groundglass.errors import OutputError
from groundglass.files import (
    check_private,
    lock_folder,
    one_at_a_time,
    output_errors,
    remove_staged,
    sha256_of,
    staged_folder,
    walk,
    write_atomic,
    write_atomic_chunks,
    write_files,
)
from helpers.deep_folders import make_deep, remove_deep

KILLED_WHILE_STAGING = """
import os, signal, sys
from pathlib import Path
from groundglass.files import staged_folder
with staged_folder(Path(sys.argv[1])) as staging:
    (staging / "half").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""
KILLED_AT_A_MOVE = """
import os, signal, sys
from pathlib import Path
from groundglass.files import write_files
step, rename, replace = int(sys.argv[2]), Path.rename, Path.replace
def count(move):
    def move_or_die(self, target):
        global step
        step -= 1
        if step < 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return move(self, target)
    return move_or_die
Path.rename, Path.replace = count(rename), count(replace)
new = dict.fromkeys(("report.md", "scores.json", "figures/a.png"), b"new")
write_files(Path(sys.argv[1]), new, replaces=["figures/a.png", "figures/b.png"])
"""
LOCK_FOLDER = """
import sys
from pathlib import Path
from groundglass.files import lock_folder
lock = lock_folder(Path(sys.argv[1]))
print(lock is not None, flush=True)
sys.stdin.read()
"""


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o027)
    yield
    os.umask(before)


# Files


def test_a_file_is_written_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    write_atomic(path, b"one")
    write_atomic(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.usefixtures("umask")
def test_the_umask_applies_and_the_process_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: int) -> int:
        raise AssertionError("the umask belongs to the whole process, also to its other threads")

    monkeypatch.setattr(os, "umask", refuse)
    write_atomic(tmp_path / "shared", b"")
    write_atomic(tmp_path / "private", b"", mode=0o600)
    monkeypatch.undo()
    assert (tmp_path / "shared").stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "private").stat().st_mode & 0o777 == 0o600


def test_an_error_while_chunks_are_produced_keeps_the_earlier_file(tmp_path: Path) -> None:
    def chunks() -> Iterator[bytes]:
        yield b"first"
        raise ValueError("no more")

    write_atomic(tmp_path / "file", b"earlier")
    with pytest.raises(ValueError, match="no more"):
        write_atomic_chunks(tmp_path / "file", chunks())
    assert content(tmp_path) == {"file": "earlier"}


def test_a_write_that_fails_is_an_output_error_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OutputError, match=r"file cannot be written: No space left on device; make room or name"):
        write_atomic(tmp_path / "file", b"data")
    assert list(tmp_path.iterdir()) == []


def test_output_errors_translates_os_errors_alone(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match=r"x cannot be written: Is a directory; try another$"),
        output_errors(Path("x"), "try another"),
    ):
        tmp_path.write_text("")
    with pytest.raises(OutputError, match="x cannot be written: odd; make room"), output_errors(Path("x")):
        raise OSError("odd")
    with pytest.raises(ValueError, match="other"), output_errors(Path("x")):
        raise ValueError("other")


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_text("abc")
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# Folders


def test_a_new_folder_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "a" / "out"
    with staged_folder(target) as staging:
        (staging / "one").write_text("1")
        (staging / "sub").mkdir()
        (staging / "sub" / "two").write_text("2")
        assert not target.exists()
        assert staging.name.startswith(".")
    assert content(target) == {"one": "1", "sub/two": "2"}
    assert list(target.parent.iterdir()) == [target]


def test_an_error_inside_leaves_nothing(tmp_path: Path) -> None:
    def fill() -> None:
        with staged_folder(tmp_path / "out") as staging:
            (staging / "one").write_text("1")
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_an_os_error_inside_is_an_output_error_that_names_the_folder(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"out cannot be written: No space left"), staged_folder(tmp_path / "out"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def earlier(tmp_path: Path) -> Path:
    """A folder with an earlier result and a file of the user."""
    target = tmp_path / "out"
    (target / "masks").mkdir(parents=True)
    for name in ("notes.txt", "findings.json", "lesions.dcm", "masks/1.png"):
        (target / name).write_text("earlier")
    (target / "link").symlink_to("nowhere")
    return target


def test_an_existing_folder_keeps_other_files_and_loses_those_of_the_earlier_result(earlier: Path) -> None:
    write_new_result(earlier, "lesions.dcm", "masks", "link", "never-written")
    assert content(earlier) == {"notes.txt": "earlier", "findings.json": "new", "report.html": "new"}
    assert sorted(path.name for path in earlier.iterdir()) == ["findings.json", "notes.txt", "report.html"]


def test_a_folder_replaces_a_file_of_the_same_name(earlier: Path) -> None:
    with staged_folder(earlier) as staging:
        (staging / "findings.json").mkdir()
        (staging / "findings.json" / "new").write_text("new")
        (staging / "masks").write_text("new")
    assert content(earlier) == {
        "notes.txt": "earlier",
        "lesions.dcm": "earlier",
        "findings.json/new": "new",
        "masks": "new",
    }


def write_new_result(target: Path, *replaces: str) -> None:
    with staged_folder(target, replaces) as staging:
        (staging / "findings.json").write_text("new")
        (staging / "report.html").write_text("new")


@pytest.mark.parametrize("failing", range(1, 6))
def test_an_error_in_the_middle_of_the_exchange_undoes_it(
    failing: int, earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rename, calls = content(earlier), Path.rename, []

    def rename_or_fail(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) == failing:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", rename_or_fail)
    with pytest.raises(OutputError, match="out cannot be written: Input/output error"):
        write_new_result(earlier, "lesions.dcm", "masks")
    assert len(calls) == 2 * failing - 1
    assert content(earlier) == before
    assert sorted(path.name for path in earlier.iterdir()) == [
        "findings.json",
        "lesions.dcm",
        "link",
        "masks",
        "notes.txt",
    ]


def test_files_that_cannot_be_put_back_are_kept(earlier: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, calls = Path.rename, []

    def fail_after_two(self: Path, target: Path) -> Path:
        calls.append(self)
        if len(calls) > 2:
            raise OSError(errno.EIO, "Input/output error")
        return rename(self, target)

    before = sorted(content(earlier).values())
    monkeypatch.setattr(Path, "rename", fail_after_two)
    with pytest.raises(OutputError), staged_folder(earlier, ("lesions.dcm", "masks", "findings.json")):
        pass
    assert sorted(content(earlier).values()) == before


@pytest.mark.parametrize("exists", [False, True])
def test_an_error_of_a_file_in_the_folder_names_the_folder_that_the_user_gave(exists: bool, tmp_path: Path) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    with pytest.raises(OutputError) as caught:
        write_files(target, {"file": b"new", "file/report.md": b"new"})
    assert str(caught.value).startswith(f"{target}/file/report.md cannot be written: ")


def test_folders_of_the_same_name_are_merged_unless_they_are_replaced(earlier: Path) -> None:
    (earlier / "masks" / "2.png").write_text("earlier")
    (earlier / "masks" / "mine.txt").write_text("mine")
    assert write_files(earlier, {"masks/1.png": b"new"}, replaces=["masks/2.png", "masks/3.png"]) == [
        earlier / "masks" / "1.png"
    ]
    kept = dict.fromkeys(("notes.txt", "findings.json", "lesions.dcm"), "earlier")
    assert content(earlier) == {**kept, "masks/1.png": "new", "masks/mine.txt": "mine"}
    write_files(earlier, {"masks/1.png": b"new"}, replaces=["masks"])
    assert content(earlier) == {**kept, "masks/1.png": "new"}


@pytest.mark.parametrize("step", range(11))
def test_a_kill_at_any_move_never_leaves_files_of_two_results(step: int, tmp_path: Path) -> None:
    target = tmp_path / "out"
    old = dict.fromkeys(("report.md", "scores.json", "figures/a.png", "figures/b.png"), b"old")
    write_files(target, {**old, "figures/mine.txt": b"mine", "notes.txt": b"mine"})
    done = subprocess.run([sys.executable, "-c", KILLED_AT_A_MOVE, str(target), str(step)], check=False)
    seen = {name: text for name, text in content(target).items() if not name.startswith(".")}
    assert (seen.pop("figures/mine.txt"), seen.pop("notes.txt")) == ("mine", "mine")
    assert len(set(seen.values())) <= 1
    assert step > 3 or seen == {name: text.decode() for name, text in old.items()}  # three files, then the exchange
    assert (done.returncode == 0) == (step == 10)
    assert ("old" in content(target).values()) == (step < 10)  # what was replaced is not lost before all is new


def test_an_existing_folder_is_filled_without_touching_its_parent(
    earlier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def only_inside(self: Path, *arguments: object, **options: object) -> None:
        if self.parent == earlier.parent and self != earlier:
            raise PermissionError(errno.EACCES, "Permission denied")
        mkdir(self, *arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "mkdir", only_inside)
    inode = earlier.stat().st_ino
    with staged_folder(earlier) as staging:
        assert staging.parent == earlier
        (staging / "findings.json").write_text("new")
    assert earlier.stat().st_ino == inode  # a mount point cannot be replaced
    assert content(earlier)["findings.json"] == "new"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_the_parent_of_an_existing_folder_need_not_be_writable(earlier: Path) -> None:
    earlier.parent.chmod(0o500)
    try:
        with staged_folder(earlier) as staging:
            (staging / "findings.json").write_text("new")
    finally:
        earlier.parent.chmod(0o700)
    assert content(earlier)["findings.json"] == "new"


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_is_removed(exists: bool, tmp_path: Path) -> None:
    target = tmp_path / "scan [1]"  # the name is not a pattern
    if exists:
        target.mkdir()
        (target / "kept").write_text("kept")
    with staged_folder(tmp_path / "scan [1]-2") as other:
        subprocess.run([sys.executable, "-c", KILLED_WHILE_STAGING, str(target)], check=False)
        left = [path for path in tmp_path.rglob(".groundglass-*") if path != other]
        assert [content(path) for path in left] == [{"half": "half"}]
        remove_staged(target)
        assert not left[0].exists()
        assert other.exists()  # another folder is being filled at the same time
    assert target.exists() == exists
    assert not exists or content(target) == {"kept": "kept"}


# Locks


def test_a_process_that_was_stopped_while_it_exchanged_files_does_not_keep_others_waiting_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("groundglass.files.LOCK_LIMIT_S", 0.1)
    with (
        one_at_a_time(tmp_path),
        pytest.raises(OutputError, match=r"another process has locked .* for 0.1 s: end it"),
        one_at_a_time(tmp_path),
    ):
        pass
    with one_at_a_time(tmp_path):
        pass


def test_a_folder_is_locked_for_one_process_until_it_is_released(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    assert lock is not None
    command = [sys.executable, "-c", LOCK_FOLDER, str(tmp_path)]
    assert subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout == "False\n"
    lock.release()
    assert subprocess.run(command, input="", capture_output=True, text=True, check=True).stdout == "True\n"


def test_a_lock_ends_when_its_process_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", LOCK_FOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == "True\n"
        assert lock_folder(tmp_path) is None
        owner.kill()
    lock = lock_folder(tmp_path)
    assert lock is not None
    lock.release()


def test_the_lock_file_is_private(tmp_path: Path) -> None:
    lock = lock_folder(tmp_path)
    assert lock is not None
    assert [path.stat().st_mode & 0o777 for path in tmp_path.iterdir()] == [0o600]
    lock.release()


def test_a_folder_that_cannot_be_written_raises_an_os_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file"):
        lock_folder(tmp_path / "file")


def test_a_lock_that_is_a_link_is_refused_and_its_target_stays(tmp_path: Path) -> None:
    (tmp_path / "target").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "lock").symlink_to(tmp_path / "target")
    with pytest.raises(OSError, match="its file lock is a link"):
        lock_folder(tmp_path / "folder")
    assert (tmp_path / "target").read_text() == "mine"


@pytest.mark.parametrize("mode", [0o777, 0o1777, 0o702])
def test_a_folder_into_which_every_user_may_write_is_not_private(tmp_path: Path, mode: int) -> None:
    check_private(tmp_path)
    tmp_path.chmod(mode)
    with pytest.raises(OutputError, match=r"every user of this machine may write into .*: chmod 700"):
        check_private(tmp_path)


# Walking


def test_folders_are_walked_as_os_walk_does(tmp_path: Path) -> None:
    for name in ("b/c/d", "a", ".hidden/e"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "b")
    (tmp_path / "dead").symlink_to(tmp_path / "nowhere")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    expected = {
        (Path(parent), tuple(sorted(folders)), tuple(sorted(names))) for parent, folders, names in os.walk(tmp_path)
    }
    assert {(parent, tuple(folders), tuple(names)) for parent, folders, names in walk(tmp_path)} == expected
    seen = []
    for parent, folders, _ in walk(tmp_path):
        folders[:] = [name for name in folders if name != "b"]
        seen.append(parent.name)
    assert "c" not in seen
    assert list(walk(tmp_path / "nothing")) == []


def test_a_tree_that_is_deeper_than_python_can_recurse_is_walked(tmp_path: Path) -> None:
    make_deep(tmp_path, 1500)
    assert max(len(parent.parts) for parent, _, _ in walk(tmp_path)) >= 1500
    remove_deep(tmp_path)


@pytest.mark.parametrize("exists", [False, True])
def test_a_folder_of_the_longest_name_is_written_and_what_a_killed_process_left_removed(
    exists: bool, tmp_path: Path
) -> None:
    target = tmp_path / ("患" * 85)  # 255 bytes
    if exists:
        target.mkdir()
    subprocess.run([sys.executable, "-c", KILLED_WHILE_STAGING, str(target)], check=False)
    (left,) = (target if exists else tmp_path).glob(".groundglass-*")
    os.utime(left, (0, 0))
    with staged_folder(target) as staging:
        (staging / "a").touch()
    assert (target / "a").exists()
    assert not left.exists()


@pytest.mark.parametrize("exists", [False, True])
def test_what_a_killed_process_left_a_day_ago_is_removed_by_the_next_one(exists: bool, tmp_path: Path) -> None:
    target = tmp_path / "out"
    if exists:
        target.mkdir()
    for _ in range(2):
        subprocess.run([sys.executable, "-c", KILLED_WHILE_STAGING, str(target)], check=False)
    parent = target if exists else tmp_path
    left, young = parent.glob(".groundglass-out-*")
    os.utime(left, (0, 0))
    (parent / ".groundglass-other-00000000").mkdir()
    os.utime(parent / ".groundglass-other-00000000", (0, 0))
    with staged_folder(target):
        pass
    assert not left.exists()
    assert young.exists()
    assert (parent / ".groundglass-other-00000000").exists()


def test_two_processes_that_fill_one_folder_leave_the_files_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "out"
    target.mkdir()
    names = {owner: [f"{owner}-{number}" for number in range(20)] for owner in "ab"}
    rename, both_are_ready = Path.rename, threading.Barrier(2)

    def rename_slowly(self: Path, destination: Path) -> Path:
        time.sleep(0.001)
        return rename(self, destination)

    monkeypatch.setattr(Path, "rename", rename_slowly)

    def fill(owner: str) -> None:
        with staged_folder(target, replaces=names["a"] + names["b"]) as staging:
            for name in names[owner]:
                (staging / name).touch()
            both_are_ready.wait()

    with ThreadPoolExecutor(2) as pool:
        for _ in range(3):
            for done in [pool.submit(fill, owner) for owner in "ab"]:
                done.result()
            assert sorted(path.name for path in target.iterdir()) in [sorted(names["a"]), sorted(names["b"])]
