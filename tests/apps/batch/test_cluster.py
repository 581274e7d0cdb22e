"""A batch on a Dask cluster of two processes, one of which is killed."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.apps.batch.cluster import run_on_cluster
from groundglass.apps.batch.records import CaseStatus, record_of, write_record
from groundglass.apps.batch.run import BatchProgress, Plan, plan
from groundglass.errors import GroundglassError
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.fake_batch import Obedient, alive, orders, pids, rows, until

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Dask's own
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster:
            yield cluster.scheduler_address


def on_cluster(address: str, source: Path, out: Path, time_limit_s: float = 60) -> tuple[Plan, BatchProgress]:
    planned = plan(str(source), out)
    progress = BatchProgress(planned)
    run_on_cluster(address, planned, progress, time_limit_s, opener=Obedient(planned.settings))
    return planned, progress


@pytest.mark.slow
def test_the_bundled_model_segments_there(address: str, tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(12, 96, 128)).scan, tmp_path / "ct.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"bad")
    planned = plan(str(tmp_path / "*.nii.gz"), tmp_path / "out")
    progress = BatchProgress(planned)
    run_on_cluster(address, planned, progress)
    assert progress.line.startswith("1 of 2 done, 1 failed")
    assert sorted(row["status"] for row in rows(tmp_path / "out").values()) == ["done", "failed"]
    assert plan(str(tmp_path / "*.nii.gz"), tmp_path / "out").waiting == tuple(
        case for case in planned.cases if case.source.name == "bad.nii.gz"
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # Dask's own, of a worker that was killed
def test_a_killed_worker_costs_nothing_and_is_replaced(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = orders(tmp_path / "PLANTED", a="fine", b=f"hang once {tmp_path / 'b'}", c="fine", d="fine")
    killed: list[int] = []

    def kill() -> None:
        own, owner = pids(tmp_path / "b")
        assert owner != os.getpid()
        os.kill(owner, signal.SIGKILL)
        killed.append(own)

    killer = threading.Thread(target=kill)
    killer.start()
    _, progress = on_cluster(address, source, tmp_path / "out")
    killer.join()
    assert [record.status for record in progress.ended] == [CaseStatus.DONE] * 4
    assert len(rows(tmp_path / "out")) == 4
    until(lambda: not alive(killed[0]), 10)
    on_record = capfd.readouterr()
    assert "PLANTED" not in on_record.out + on_record.err


def test_a_case_that_kills_its_process_or_takes_too_long_is_a_row(address: str, tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b="die", c=f"hang {tmp_path / 'c'}", d="fine")
    planned, _ = on_cluster(address, source, tmp_path / "out", time_limit_s=2)
    names = {case.name: case.source.stem for case in planned.cases}
    statuses = {names[name]: row["status"] for name, row in rows(tmp_path / "out").items()}
    assert statuses == {"a": "done", "b": "failed", "c": "timed out", "d": "done"}
    pid, _ = pids(tmp_path / "c")
    assert not alive(pid)


def test_what_is_done_is_not_asked_for_again(address: str, tmp_path: Path) -> None:
    source = orders(tmp_path / "in", a="fine", b="fine")
    planned = plan(str(source), tmp_path / "out")
    first = planned.cases[0]
    (tmp_path / "out" / first.name).mkdir(parents=True)
    (tmp_path / "out" / first.name / "findings.json").touch()
    write_record(record_of(first, planned.settings, CaseStatus.DONE, 0, first.fingerprint, None), tmp_path / "out")
    _, progress = on_cluster(address, source, tmp_path / "out")
    assert [record.case for record in progress.ended] == [planned.cases[1].name]
    assert len(rows(tmp_path / "out")) == 2


def test_a_cluster_that_is_not_there_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.apps.batch.cluster.CONNECT_S", 1)
    source = orders(tmp_path / "in", a="fine")
    with pytest.raises(GroundglassError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 \(\w+\), expected"):
        on_cluster("tcp://127.0.0.1:9", source, tmp_path / "out")
