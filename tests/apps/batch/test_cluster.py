"""A batch on a Dask cluster of two processes, one of which is killed."""

import os
import signal
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from groundglass.apps.batch.cluster import _find_model, run_on_cluster
from groundglass.apps.batch.records import BatchOptions, ItemStatus, make_record, write_record
from groundglass.apps.batch.run import BatchPlan, BatchProgress, plan_batch
from groundglass.errors import GroundglassError
from groundglass.io import nifti
from groundglass.scan.phantom import chest_phantom
from helpers.fake_batch import FakeBatchWorkerFactory, summary_rows, write_scripts
from helpers.scripted_worker import hanging_pids, is_alive, wait_until

pytestmark = pytest.mark.thorough

distributed = pytest.importorskip("distributed")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # from Dask itself
        with distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, host="127.0.0.1"
        ) as cluster:
            yield cluster.scheduler_address


def run_scripts_on_cluster(
    address: str, source: Path, out: Path, time_limit_s: float = 60
) -> tuple[BatchPlan, BatchProgress]:
    planned = plan_batch(str(source), out)
    progress = BatchProgress(planned)
    run_on_cluster(address, planned, progress, time_limit_s, worker_factory=FakeBatchWorkerFactory(planned.settings))
    return planned, progress


@pytest.mark.slow
def test_the_bundled_model_segments_on_a_cluster(address: str, tmp_path: Path) -> None:
    nifti.write_scan(chest_phantom(shape=(12, 96, 128)).scan, tmp_path / "ct.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"bad")
    planned = plan_batch(str(tmp_path / "*.nii.gz"), tmp_path / "out")
    progress = BatchProgress(planned)
    run_on_cluster(address, planned, progress)
    assert progress.line.startswith("1 of 2 done, 1 failed")
    assert sorted(row["status"] for row in summary_rows(tmp_path / "out").values()) == ["done", "failed"]
    assert plan_batch(str(tmp_path / "*.nii.gz"), tmp_path / "out").pending == tuple(
        item for item in planned.items if item.source.name == "bad.nii.gz"
    )


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # from Dask, about a worker that was killed
def test_a_killed_dask_worker_is_replaced_and_its_item_done(
    address: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    source = write_scripts(tmp_path / "PLANTED", a="fine", b=f"hang once {tmp_path / 'b'}", c="fine", d="fine")
    killed: list[int] = []

    def kill() -> None:
        own, owner = hanging_pids(tmp_path / "b")
        assert owner != os.getpid()
        os.kill(owner, signal.SIGKILL)
        killed.append(own)

    killer = threading.Thread(target=kill)
    killer.start()
    _, progress = run_scripts_on_cluster(address, source, tmp_path / "out")
    killer.join()
    assert [record.status for record in progress.finished] == [ItemStatus.DONE] * 4
    assert len(summary_rows(tmp_path / "out")) == 4
    wait_until(lambda: not is_alive(killed[0]), 10)
    output = capfd.readouterr()
    assert "PLANTED" not in output.out + output.err


@pytest.mark.slow
def test_an_item_that_kills_its_process_or_exceeds_the_time_limit_becomes_a_row(address: str, tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b="die", c=f"hang {tmp_path / 'c'}", d="fine")
    planned, _ = run_scripts_on_cluster(address, source, tmp_path / "out", time_limit_s=2)
    names = {item.name: item.source.stem for item in planned.items}
    statuses = {names[name]: row["status"] for name, row in summary_rows(tmp_path / "out").items()}
    assert statuses == {"a": "done", "b": "failed", "c": "timed out", "d": "done"}
    pid, _ = hanging_pids(tmp_path / "c")
    assert not is_alive(pid)


def test_items_that_are_done_are_skipped(address: str, tmp_path: Path) -> None:
    source = write_scripts(tmp_path / "in", a="fine", b="fine")
    planned = plan_batch(str(source), tmp_path / "out")
    first = planned.items[0]
    (tmp_path / "out" / first.name).mkdir(parents=True)
    (tmp_path / "out" / first.name / "findings.json").touch()
    write_record(make_record(first, planned.settings, ItemStatus.DONE, 0, first.fingerprint), tmp_path / "out")
    _, progress = run_scripts_on_cluster(address, source, tmp_path / "out")
    assert [record.case for record in progress.finished] == [planned.items[1].name]
    assert len(summary_rows(tmp_path / "out")) == 2


def test_a_worker_of_another_version_is_told(tmp_path: Path) -> None:
    (marker := tmp_path / "marker").touch()
    found = _find_model(marker, BatchOptions(), "9.9.9")
    assert found.startswith("groundglass ")
    assert found.endswith(" instead of 9.9.9")


def test_a_missing_scheduler_is_reported_on_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("groundglass.apps.batch.cluster.CONNECT_S", 1)
    source = write_scripts(tmp_path / "in", a="fine")
    with pytest.raises(GroundglassError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9 \(\w+\), expected"):
        run_scripts_on_cluster("tcp://127.0.0.1:9", source, tmp_path / "out")
