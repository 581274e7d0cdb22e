"""A console that lacks characters: they are replaced, and no command fails for them."""

import errno
import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.table import Table
from rich.text import Text

from groundglass.cli.console import console, print_event, print_lines
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.cases import sample

ENCODINGS = sample(["cp1252", "ascii", "latin-1"], every=3)
NAMES = [b"\xe8\x82\xba.nii.gz", b"\xc3\xa9\xe2\x86\x92.nii.gz", b"caf\xe9.nii.gz"]  # the last is no UTF-8


ONE_AFTER_ANOTHER = """
import sys
from groundglass.cli import main
codes, remaining = set(), sys.argv[1:]
while remaining:
    end = remaining.index(";")
    sys.argv, remaining = ["groundglass", *remaining[:end]], remaining[end + 1:]
    try:
        main()
    except SystemExit as ended:
        codes.add(ended.code or 0)
sys.exit(codes.pop() if len(codes) == 1 else 99)
"""


def run(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    return run_process(encoding, "-m", "groundglass", *arguments)


def run_each(encoding: str, *commands: tuple[object, ...]) -> subprocess.CompletedProcess[bytes]:
    """Run commands in one process; its exit code is that of each of them, or else 99."""
    return run_process(encoding, "-c", ONE_AFTER_ANOTHER, *(word for command in commands for word in (*command, ";")))


def run_process(encoding: str, *arguments: object) -> subprocess.CompletedProcess[bytes]:
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    command = [sys.executable, *map(str, arguments)]
    return subprocess.run(command, env=environment, capture_output=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scans whose names no common console can show."""
    folder = tmp_path_factory.mktemp("scans")
    nifti.write_scan(chest_phantom(shape=(6, 72, 96)).scan, folder / "ct.nii.gz")
    content = (folder / "ct.nii.gz").read_bytes()
    (folder / "ct.nii.gz").unlink()
    for name in NAMES:
        try:
            (folder / os.fsdecode(name)).write_bytes(content)
        except OSError:
            pytest.skip("the file system takes no such names")
    return folder


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.thorough
def test_info_and_errors_are_printed_with_replaced_characters(folder: Path, encoding: str) -> None:
    paths = [folder / os.fsdecode(name) for name in NAMES]
    found = run_each(encoding, *(("info", path) for path in paths))
    assert (found.returncode, found.stderr) == (0, b"")
    refused = run_each(encoding, *(("segment", path.with_suffix(".gone"), "-o", folder) for path in paths))
    assert refused.returncode == 3
    assert refused.stderr.count(b"there is no such file") == len(NAMES)
    assert b"Traceback" not in refused.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
@pytest.mark.thorough
def test_a_refusal_keeps_its_exit_code_without_a_place_for_its_message_and_a_full_output_is_no_bug() -> None:
    program = f"{sys.executable} -m groundglass"
    for stderr in ("2>&-", "2>/dev/full"):
        refused = subprocess.run(f"{program} info nowhere {stderr}", shell=True, check=False)
        assert refused.returncode == 3
    full = subprocess.run(f"{program} --version >/dev/full", shell=True, check=False, capture_output=True, text=True)
    assert (full.returncode, full.stderr) == (
        1,
        "groundglass: standard output cannot be written: No space left on device\n",
    )


def test_no_file_has_the_number_of_a_standard_stream(tmp_path: Path) -> None:
    """What a library prints would go into it."""
    lines = [
        "import os, sys",
        "from groundglass import cli",
        f"opened = lambda: os.open({str(tmp_path / 'data')!r}, os.O_CREAT | os.O_RDWR)",
        "cli.app = lambda **_: [opened(), opened(), opened(), os.write(2, b'line')]",
        "cli.main()",
    ]
    (tmp_path / "program.py").write_text("\n".join(lines))
    subprocess.run(f"{sys.executable} {tmp_path / 'program.py'} <&- >&- 2>&-", shell=True, check=False)
    assert (tmp_path / "data").read_bytes() == b""


class FullDisk(io.StringIO):
    """A log on a full disk."""

    def flush(self) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")


def test_a_program_that_runs_on_loses_the_lines_for_which_the_disk_has_no_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", FullDisk())
    with pytest.raises(OSError, match="No space left"):
        print_lines(["a result"])
    print_event("waiting: the disk is full")


@pytest.mark.slow
@pytest.mark.parametrize("encoding", ENCODINGS[:2])
def test_segment_and_batch_write_everything_and_exit_with_0(folder: Path, tmp_path: Path, encoding: str) -> None:
    for number, name in enumerate(NAMES):
        path, output = folder / os.fsdecode(name), tmp_path / f"肺{number}"
        done = run(encoding, "segment", path, "-o", output, "--with-identity")
        assert (done.returncode, done.stderr) == (0, b"")
        assert b"report.html" in done.stdout
        assert (output / "report.html").exists()
    batch = run(encoding, "batch", folder, "-o", tmp_path / "all肺", "--with-identity")
    assert (batch.returncode, batch.stderr) == (0, b"")
    assert b"3 of 3 done" in batch.stdout
    follow = run(encoding, "follow", *sorted(folder.iterdir())[:2], "-o", tmp_path / "follow", "--with-identity")
    assert (follow.returncode, follow.stderr) == (0, b"")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_minus_sign_stays_one_where_others_are_replaced(encoding: str) -> None:
    code = (
        "from groundglass.cli.console import print_lines, replace_unprintable\n"
        "replace_unprintable()\n"
        "print_lines(['\\N{MINUS SIGN}12.5 ml \\u80ba'])"
    )
    assert run_process(encoding, "-c", code).stdout.split() == [b"-12.5", b"ml", b"?"]


def test_texts_of_files_are_shown_as_they_are_also_in_tables(capsys: pytest.CaptureFixture[str]) -> None:
    escape, markup = "a\x1b[31mb\u202ec", "[/] [red]x[/red] :smile:"
    table = Table(escape, markup, caption=escape)
    table.add_row(markup, Text(escape))
    console().print(table)
    print_lines([escape, markup])
    output = capsys.readouterr().out
    assert "\x1b" not in output
    assert "\u202e" not in output
    assert output.count("a?[31mb?c") >= 3
    assert output.count(markup) == 3
