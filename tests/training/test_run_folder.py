"""A run folder is refused, and stays as it is, wherever a training in it would cost something."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from groundglass.data.prepared import read_manifest
from groundglass.data.splits import Split
from groundglass.errors import ConfigError, GroundglassError, ModelError, TrainingError
from groundglass.files import lock_folder
from groundglass.training.config import RunConfig, parse_config
from groundglass.training.finished_run import open_run
from groundglass.training.provenance import sha256_of_slices
from groundglass.training.run import resume_or_train, train, with_prepared_settings
from groundglass.training.run_folder import check_resumable

pytestmark = pytest.mark.thorough

SPLIT = Split(name="apart", protocol="B", rule="", train=("volumes/1",), validation=("volumes/5",), test=("volumes/4",))


@pytest.fixture(scope="module")
def config() -> RunConfig:
    training = {"optimiser": "adam", "epochs": 2, "early_stopping_patience": 0}
    sampling = {"batch_size": 4, "samples": 8, "lesion_free": True}
    return parse_config({"name": "t", "network": {"widths": [4, 8]}, "sampling": sampling, "training": training}, "t")


@pytest.fixture(scope="module")
def run(prepared: Path, config: RunConfig, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "run"
    train(config, prepared, SPLIT, path)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def renamed(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).rename(folder / f"{name}.away")


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(content)


def cut_short(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-2000])


@pytest.mark.parametrize(
    ("damage", "resume", "message"),
    [
        (
            renamed("last.ckpt"),
            False,
            r"what is left of a training \(best\.ckpt, result\.json, metrics\.csv\), but no last",
        ),
        (renamed("last.ckpt"), True, r"last\.ckpt does not exist, so there is nothing to resume: put it back"),
        (renamed("config.json"), True, r"cannot be resumed: .*config\.json is missing: put it back"),
        (renamed("split.json"), True, r"cannot be resumed: .*split\.json is missing: put it back"),
        (renamed("provenance.json"), True, r"its provenance\.json is missing: put it back"),
        (renamed("best.ckpt"), True, r"best\.ckpt does not exist"),
        (replaced("provenance.json", b"{"), True, r"provenance\.json is damaged"),
        (replaced("metrics.csv", b"a,b\n1,2\n"), True, r"metrics\.csv is damaged: put it back, or move it away"),
        (replaced("config.json", b"\xff"), True, r"is damaged or of another version"),
        (replaced("last.ckpt", b""), True, r"last\.ckpt is damaged, cut short, or no checkpoint"),
        (
            replaced("last.ckpt", b"version https://git-lfs.github.com/spec/v1"),
            True,
            r"last\.ckpt is damaged, cut short",
        ),
        (cut_short("last.ckpt"), True, r"last\.ckpt is damaged, cut short"),
        (cut_short("best.ckpt"), True, r"best\.ckpt is damaged, cut short"),
    ],
)
def test_a_damaged_run_folder_is_refused_before_anything_in_it_is_touched(
    run: Path,
    prepared: Path,
    config: RunConfig,
    tmp_path: Path,
    damage: Callable[[Path], object],
    resume: bool,
    message: str,
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    damage(folder)
    before = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    with pytest.raises(GroundglassError, match=message):
        train(config, prepared, SPLIT, folder, resume)
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_folder_of_another_program_or_of_a_running_training_is_refused(
    run: Path, prepared: Path, config: RunConfig, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ConfigError, match=r"config\.json is no training's of this version: name another folder"):
        train(config, prepared, SPLIT, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file: name a folder"):
        train(config, prepared, SPLIT, tmp_path / "file")
    lock = lock_folder(run)
    assert lock is not None
    before = contents(run)
    with pytest.raises(ConfigError, match=r"another process trains in .*: wait until it ends"):
        train(config, prepared, SPLIT, run, resume=True)
    lock.release()
    assert contents(run) == before


def test_a_run_is_not_resumed_with_other_slices_under_the_same_names(
    run: Path, prepared: Path, config: RunConfig
) -> None:
    manifest = read_manifest(prepared)
    others = [case.model_copy(update={"labels_sha256": "0" * 64}) for case in manifest.cases]
    changed = manifest.model_copy(update={"cases": tuple(others)})
    complete = with_prepared_settings(config, manifest)
    check_resumable(run, complete, SPLIT, sha256_of_slices(manifest, {"volumes/5", "volumes/1"}))
    with pytest.raises(ConfigError, match="was started with other slices: name the prepared folder"):
        check_resumable(run, complete, SPLIT, sha256_of_slices(changed, {"volumes/1", "volumes/5"}))


def test_a_damaged_result_is_made_again_from_the_checkpoint_and_a_lost_checkpoint_is_told(
    run: Path, prepared: Path, config: RunConfig, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run, folder)
    (folder / "result.json").write_text("{")
    resume_or_train(config, prepared, SPLIT, folder)
    assert (folder / "result.json").read_bytes() == (run / "result.json").read_bytes()
    result = json.loads((run / "result.json").read_bytes())
    (folder / "result.json").write_text(json.dumps(result | {"threshold": 45}))
    with pytest.raises(ModelError, match=r"is damaged: its result\.json"):
        open_run(folder)
    shutil.copy(run / "result.json", folder)
    (folder / "best.ckpt").unlink()
    with pytest.raises(ModelError, match=r"is damaged: its result\.json, or the checkpoint that it names, is missing"):
        open_run(folder)
    with pytest.raises(TrainingError, match=r"best\.ckpt does not exist"):
        resume_or_train(config, prepared, SPLIT, folder)
