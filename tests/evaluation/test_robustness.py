import csv
import io
import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from rich.console import Console

from groundglass.errors import DatasetError, IntensityError, LungError, OutputError
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.robustness import (
    MAX_DICE_LOSS,
    Robustness,
    VariantResult,
    measure_robustness,
    refuse_other_files,
    robustness_table,
    write_repeatability,
    write_robustness,
)
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.evaluation.variants import PADDING_HU, VARIANTS, Variant, Volume
from groundglass.inference.model_card import read_card
from groundglass.inference.segmenter import Segmenter
from groundglass.metrics import Confusion
from groundglass.report.findings import ModelRef
from groundglass.scan.geometry import Geometry
from groundglass.scan.intensity import recognise_numbers
from groundglass.scan.kinds import IntensityKind
from groundglass.scan.phantom import Phantom
from groundglass.scan.scan import Scan
from helpers.command import run_command
from helpers.model_copy import copy_bundled_model

pytestmark = pytest.mark.slow
BY_NAME = {variant.name: variant for variant in VARIANTS}
CASE = "volumes/4"
SAME_VOXELS = ("as it is", "HU", "HU + 1024", "axes permuted")
FLIPPED = ("mirrored", "turned by 180 degrees", "slices reversed")
RESCALED = {"0.75 x the pixels": 9 / 16, "1.33 x the pixels": 16 / 9}


@pytest.fixture(scope="session")
def volume(phantom: Phantom) -> Volume:
    return Volume(phantom.scan, phantom.lesions.voxels.astype(np.uint8))


@pytest.fixture(scope="module")
def measured(targets: dict[str, EvaluationTarget], grey_band: Segmenter) -> Robustness:
    names = (*SAME_VOXELS, "HU, padded", *FLIPPED, *RESCALED)
    return measure_robustness([targets[CASE]], grey_band, variants=[BY_NAME[name] for name in names])


def changed(volume: Volume, name: str) -> Volume:
    return BY_NAME[name](volume, CASE)


def lesion_ml(volume: Volume) -> float:
    return int((volume.labels > 0).sum()) * (volume.scan.geometry.voxel_ml or 0)


def centre(volume: Volume) -> NDArray[np.float64]:
    """(3,) where the lesions are, in mm."""
    return np.asarray(volume.scan.geometry.position(np.argwhere(volume.labels > 0).mean(0)))


def test_every_variant_has_a_name_of_its_own_and_a_sentence() -> None:
    assert len(BY_NAME) == len(VARIANTS) >= 20
    assert VARIANTS[0].name == "as it is"
    assert all(variant.stands_for[0].isupper() and variant.stands_for.endswith(".") for variant in VARIANTS)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.name)
def test_a_variant_is_reproducible_and_recognised_as_ct(variant: Variant, volume: Volume) -> None:
    one, other = variant(volume, CASE), variant(volume, CASE)
    assert np.array_equal(one.scan.values, other.scan.values)
    assert one.scan.values.shape == one.labels.shape
    assert one.labels.dtype == np.uint8
    eight_bit = variant.name.startswith("8-bit")
    shifted = variant.name == "HU + 1024"
    assert one.scan.values.dtype == (np.uint8 if eight_bit else np.uint16 if shifted else np.int16)
    kind = IntensityKind.WINDOW_8BIT if eight_bit else IntensityKind.SHIFTED_HU if shifted else IntensityKind.HU
    assert recognise_numbers(one.scan).kind is kind
    assert lesion_ml(one) == pytest.approx(lesion_ml(volume), rel=0.03)


def test_changes_of_the_grid_keep_8_bit_values_and_the_others_store_hu(volume: Volume) -> None:
    picture = changed(volume, "8-bit, -1350 to 150 HU")
    for name in ("as it is", "0.75 x the pixels", "mirrored", "axes permuted"):
        assert changed(picture, name).scan.values.dtype == np.uint8
    for name in ("HU", "noise, 25 HU", "thick slices"):
        assert changed(picture, name).scan.values.dtype == np.int16


def test_noise_has_the_stated_strength_and_kernels_change_the_detail(volume: Volume) -> None:
    hu = volume.scan.values.astype(np.float64)
    for sigma in (25, 50):
        added = changed(volume, f"noise, {sigma} HU").scan.values - hu
        assert (added.mean(), added.std()) == (pytest.approx(0, abs=0.3), pytest.approx(sigma, rel=0.02))
    other = BY_NAME["noise, 25 HU"](volume, "volumes/5").scan.values
    assert not np.array_equal(other, changed(volume, "noise, 25 HU").scan.values)  # each case has noise of its own

    def detail(name: str) -> float:
        return float(np.abs(np.diff(changed(volume, name).scan.values.astype(np.float64), axis=2)).mean())

    assert detail("soft, 2 pixels") < detail("soft, 1 mm") < detail("as it is") < detail("sharp")


@pytest.mark.parametrize(("dz", "weights"), [(6.0, (0.2, 0.6, 0.2)), (4.0, (0.3, 0.4, 0.3)), (12.0, (0.0, 1.0, 0.0))])
def test_thick_slices_are_the_mean_over_10_mm(dz: float, weights: tuple[float, ...], volume: Volume) -> None:
    values = volume.upright().scan.values
    scan = Scan(values, Geometry(values.shape, np.array([[0, 0, 0.7, 0], [0, 0.7, 0, 0], [dz, 0, 0, 0], [0, 0, 0, 1]])))
    before = Volume(scan, volume.upright().labels)
    after = changed(before, "thick slices").scan
    assert after.geometry.matches(before.upright().scan.geometry)
    expected = np.average(before.upright().scan.values[9:12].astype(np.float64), axis=0, weights=weights)
    assert np.abs(after.values[10] - expected).max() <= 0.51


def test_the_padding_lies_outside_the_circle(volume: Volume) -> None:
    padded = changed(volume, "HU, padded").scan.values == PADDING_HU
    assert padded.mean() == pytest.approx(1 - np.pi / 4, abs=0.01)
    assert padded[:, 0, 0].all()
    assert not padded[:, 72, [0, 95, -1]].any()


def test_windows_clip_at_both_ends_and_shifts_at_zero(volume: Volume) -> None:
    hu, levels = volume.scan.values, changed(volume, "8-bit, -1000 to 400 HU").scan.values
    assert (levels[hu <= -1000] == 0).all()
    assert (levels[hu >= 400] == 255).all()
    assert np.abs(levels[(hu > -1000) & (hu < 400)] / 255 * 1400 - 1000 - hu[(hu > -1000) & (hu < 400)]).max() < 2.8
    below = Volume(Scan(np.where(hu < -900, -2000, hu), volume.scan.geometry), volume.labels)
    assert changed(below, "HU + 1024").scan.values.min() == 0


def test_resampling_keeps_positions_and_volumes(volume: Volume) -> None:
    for name, shape in zip(RESCALED, ((32, 108, 142), (32, 192, 253)), strict=True):
        rescaled = changed(volume, name)
        assert rescaled.labels.shape == shape
        assert rescaled.scan.geometry.spacing[0] == pytest.approx(volume.scan.geometry.spacing[0])
        assert lesion_ml(rescaled) == pytest.approx(lesion_ml(volume), rel=0.02)
        assert centre(rescaled) == pytest.approx(centre(volume), abs=0.2)
        grids = volume.upright().scan.geometry, rescaled.scan.geometry
        for end in (0, 1):  # the outer faces stay where they are
            before, after = (grid.position(np.array([0, *(end * n - 0.5 for n in grid.shape[1:])])) for grid in grids)
            assert before == pytest.approx(after, abs=1e-6)


@pytest.mark.parametrize(("name", "axes"), list(zip(FLIPPED, ((2,), (1, 2), (0,)), strict=True)))
def test_the_mask_moves_with_the_image(name: str, axes: tuple[int, ...], volume: Volume) -> None:
    upright, flipped = volume.upright(), changed(volume, name)
    assert flipped.scan.geometry.matches(upright.scan.geometry)
    assert np.array_equal(np.flip(flipped.labels, axes), upright.labels)
    lesion = upright.scan.values[upright.labels > 0]
    assert sorted(flipped.scan.values[flipped.labels > 0]) == sorted(lesion)


def test_permuted_axes_keep_every_voxel_where_it_is(volume: Volume) -> None:
    permuted = changed(volume, "axes permuted")
    assert permuted.labels.shape == tuple(np.array(volume.upright().labels.shape)[[2, 0, 1]])
    assert centre(permuted) == pytest.approx(centre(volume))
    assert np.array_equal(permuted.upright().scan.values, volume.upright().scan.values)
    assert permuted.upright().scan.geometry.matches(volume.upright().scan.geometry)


def test_variants_that_keep_every_voxel_have_the_same_counts(
    measured: Robustness, targets: dict[str, EvaluationTarget], grey_band: Segmenter
) -> None:
    (expected,) = evaluate([targets[CASE]], grey_band).cases
    for result in measured.results:
        if result.variant.name in SAME_VOXELS:
            assert result.counts == {CASE: expected.pooled_counts["whole"]}
            assert measured.dice_difference(result) == measured.dice_difference(result, CASE) == 0
    assert measured.model == ModelRef(name="grey-band", sha256="0" * 64)


def test_small_changes_lose_little_dice(measured: Robustness) -> None:
    by_name = {result.variant.name: result for result in measured.results}
    assert not any(result.refused for result in measured.results)
    counts = {result.variant.name: result.counts[CASE] for result in measured.results}
    for name in ("HU, padded", *FLIPPED):
        assert measured.dice_difference(by_name[name]) == pytest.approx(0, abs=MAX_DICE_LOSS), name
    for name, share in RESCALED.items():  # the grey rims of tissues grow and shrink with the pixels, so no Dice
        assert counts[name].sensitivity == pytest.approx(counts["as it is"].sensitivity, abs=0.02), name
        assert sum(counts[name].counts) == pytest.approx(share * sum(counts["as it is"].counts), rel=0.01)


def test_unchanged_volumes_score_as_in_evaluate_and_temporary_files_are_removed(
    targets: dict[str, EvaluationTarget], grey_band: Segmenter, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    both = [targets["volumes/1"], targets["volumes/8"]]  # volumes/1 runs from head to feet
    calls: list[tuple[int, int]] = []
    found = measure_robustness(both, grey_band, lambda *done: calls.append(done), variants=VARIANTS[:2])
    expected = evaluate(both, grey_band)
    assert [result.pooled_counts for result in found.results] == [expected.pooled_counts["whole"]] * 2
    assert found.cases == ("volumes/1", "volumes/8")
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    assert list(tmp_path.iterdir()) == []


def _black(volume: Volume, _: np.random.Generator) -> Volume:
    return volume.with_values(np.zeros_like(volume.scan.values))


def _full(volume: Volume, _: np.random.Generator) -> Volume:
    return volume.with_values(np.where(volume.scan.values < -990, -1000, 40).astype(np.int16))


def _lost(volume: Volume, _: np.random.Generator) -> Volume:
    """Lesions as dense as muscle."""
    return volume.with_values(np.where(volume.labels > 0, 40, volume.scan.values).astype(np.int16))


@pytest.fixture(scope="module")
def refused(targets: dict[str, EvaluationTarget], grey_band: Segmenter) -> Robustness:
    def thin(volume: Volume, _: np.random.Generator) -> Volume:
        raise DatasetError("it is [bold] | thin")

    variants = (VARIANTS[0], *(Variant(f.__name__, "A test.", f) for f in (_black, _full, thin, _lost)))
    return measure_robustness([targets[CASE], targets["volumes/8"]], grey_band, warnings=("beware",), variants=variants)


def test_a_refused_variant_is_listed_with_its_reason(refused: Robustness, targets: dict[str, EvaluationTarget]) -> None:
    first, black, full, thin, lost = refused.results
    assert first.pooled_counts is not None
    assert set(black.refused) == set(full.refused) == {CASE, "volumes/8"}
    assert black.refused[CASE].startswith("the values run from 0 to 0")
    assert full.refused[CASE].startswith("no lung was found")
    assert thin.refused[CASE] == "it is [bold] | thin"
    assert (black.pooled_counts, refused.dice_difference(black), black.counts) == (None, None, {})
    assert refused.degraded == (lost,)


def test_a_volume_that_is_refused_unchanged_is_an_error(
    targets: dict[str, EvaluationTarget], grey_band: Segmenter
) -> None:
    for change, error in ((_black, IntensityError), (_full, LungError)):
        with pytest.raises(error, match=r"^volumes/4: "):
            measure_robustness([targets[CASE]], grey_band, variants=[Variant("as it is", "A test.", change)])


def test_a_volume_without_directions_is_refused(
    targets: dict[str, EvaluationTarget], grey_band: Segmenter, tmp_path: Path
) -> None:
    case = replace(targets[CASE].case, image=tmp_path / "ct.nii.gz", mask=tmp_path / "mask.nii.gz")
    for given, written in zip(
        (targets[CASE].case.image, targets[CASE].case.mask), (case.image, case.mask), strict=True
    ):
        image: Any = nib.load(given)
        image.header.set_sform(None, code=0)
        image.header.set_qform(None, code=0)
        nib.save(nib.Nifti1Image(np.asanyarray(image.dataobj), None, image.header), written)
    with pytest.raises(DatasetError, match="states no directions, without which it cannot be changed as scanners do"):
        measure_robustness([replace(targets[CASE], case=case)], grey_band)


def test_only_whole_volumes_are_accepted(targets: dict[str, EvaluationTarget], grey_band: Segmenter) -> None:
    wrong = {
        "slices/000 is a picture": targets["slices/000"],
        "stack/tr is a stack of slices of different patients": targets["stack/tr"],
        "only some slices of volumes/4 are to be scored": replace(targets[CASE], slices=frozenset({3})),
    }
    calls: list[object] = []
    for message, target in wrong.items():
        with pytest.raises(DatasetError, match=message):
            measure_robustness([targets[CASE], target], grey_band, lambda *done: calls.append(done))
    with pytest.raises(DatasetError, match="there is nothing to score"):
        measure_robustness([], grey_band)
    assert not calls  # refused before anything is scored


def made_up(*dice: tuple[int, int, int]) -> Robustness:
    results = [
        VariantResult(VARIANTS[number], {"a/1": Confusion(*counts, 100), "a/2": Confusion(*counts, 200)})
        for number, counts in enumerate(dice)
    ]
    return Robustness(ModelRef(name="m", sha256="f" * 64), 0.5, tuple(results))


def test_differences_of_dice_match_a_worked_example() -> None:
    found = made_up((50, 50, 50), (45, 55, 55), (44, 56, 56), (60, 40, 40), (0, 0, 0))
    assert [found.dice_difference(result) for result in found.results[:4]] == pytest.approx([0, -0.05, -0.06, 0.1])
    assert found.dice_difference(found.results[4]) is None  # nothing is predicted and nothing is lesion: undefined
    assert [result.variant.name for result in found.degraded][-1] == "HU, padded"


def test_the_repeatability_matches_a_worked_example() -> None:
    repeats = [variant for variant in VARIANTS if variant.repeat][:2]
    counts = (  # predicted: 100, 110 and 90 of 1000 voxels of one volume; 50, 50 and 50 of another
        {"a/1": Confusion(60, 40, 0, 900), "a/2": Confusion(50, 0, 10, 940)},
        {"a/1": Confusion(60, 50, 0, 890), "a/2": Confusion(0, 50, 60, 890)},
        {"a/1": Confusion(180, 0, 0, 1820), "a/2": Confusion(100, 0, 0, 1900)},  # twice the voxels
    )
    variants = (VARIANTS[0], *repeats)
    results = tuple(VariantResult(variant, counted) for variant, counted in zip(variants, counts, strict=True))
    other = VariantResult(BY_NAME["mirrored"], {"a/1": Confusion(1, 0, 0, 999), "a/2": Confusion(1, 0, 0, 999)})
    found = Robustness(ModelRef(name="m", sha256="f" * 64), 0.5, (*results, other))
    first = np.log([100, 110, 90]).std(ddof=1)
    assert found.repeatability == pytest.approx(np.sqrt((first**2 + 0) / 2))
    nothing = replace(results[1], counts={"a/1": Confusion(0, 0, 60, 940), "a/2": Confusion(0, 0, 60, 940)})
    assert replace(found, results=(results[0], nothing)).repeatability is None
    assert replace(found, results=(results[0], other)).repeatability is None
    refused = replace(results[1], refused={"a/1": "no lung"})
    assert replace(found, results=(results[0], refused)).repeatability is None


def test_the_repeatability_is_written_into_the_card(tmp_path: Path) -> None:
    model = copy_bundled_model(tmp_path / "model.onnx")
    repeats = [VARIANTS[0], next(variant for variant in VARIANTS if variant.repeat)]
    counts = [Confusion(100, 0, 0, 900), Confusion(120, 0, 0, 880)]
    results = tuple(VariantResult(variant, {"a/1": counted}) for variant, counted in zip(repeats, counts, strict=True))
    found = Robustness(ModelRef(name="m", sha256="f" * 64), 0.5, results)
    write_repeatability(model, found)
    assert read_card(model).repeatability == pytest.approx(np.log(1.2) / np.sqrt(2), abs=1e-4)
    with pytest.raises(DatasetError, match="cannot be measured"):
        write_repeatability(model, replace(found, results=results[:1]))


def cells(table: str, name: str) -> list[str]:
    (line,) = [line for line in table.splitlines() if line.strip(" |│").startswith(name)]
    return [cell.strip() for cell in line.replace("│", "|").strip("|").split("|")]


def test_the_table_marks_losses_and_shows_reasons(refused: Robustness) -> None:
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(robustness_table(refused))
    text = console.export_text()
    first, lost = refused.results[0], refused.results[-1]
    assert first.pooled_counts is not None
    assert cells(text, "as it is")[:3] == ["as it is", f"{100 * (first.pooled_counts.dice or 0):.1f}", "+0.0"]
    assert cells(text, "_lost")[2] == f"{100 * (refused.dice_difference(lost) or 0):+.1f} !"
    assert "[bold]" in text
    assert "no lung was found" in text
    assert "! marks a loss of more than 5 points of Dice" in " ".join(text.split())


def test_the_report_and_csv_hold_every_variant(refused: Robustness, tmp_path: Path) -> None:
    files = write_robustness(refused, tmp_path / "new", "groundglass robustness --data DATA --case x")
    assert [path.name for path in files] == ["robustness.md", "robustness.csv"]
    assert set((tmp_path / "new").iterdir()) == set(files)
    text = files[0].read_text()
    assert "    groundglass robustness --data DATA --case x\n" in text
    assert "# grey-band on changed volumes\n" in text
    assert f"Model sha256 {'0' * 64}" in text
    assert "**Warning: beware.**" in text
    assert "it is [bold] \\| thin" in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert len(rows) == 2 + len(refused.results)
    assert {line.replace("\\|", "").count("|") for line in rows} == {9}
    table = list(csv.DictReader(io.StringIO(files[1].read_text())))
    assert [row["case"] for row in table] == ["pooled", CASE, "volumes/8"] * len(refused.results)
    first, black, lost = table[0], table[3], table[-3]
    pooled = refused.results[0].pooled_counts
    assert pooled is not None
    assert int(first["true_positive"]) == pooled.true_positive
    assert float(first["dice"]) == pytest.approx(pooled.dice, abs=1e-5)
    assert (first["refused"], first["dice_difference"]) == ("", "0.0")
    assert (black["refused"], black["dice"], black["true_positive"]) == (f"{CASE}; volumes/8", "", "")
    assert table[4]["refused"].startswith("the values run from 0 to 0")
    assert float(lost["dice_difference"]) < -MAX_DICE_LOSS
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_robustness(refused, tmp_path / "file", "")


def test_a_table_of_others_is_not_replaced(refused: Robustness, tmp_path: Path) -> None:
    (tmp_path / "robustness.csv").write_text("of others\n")
    for write in (refuse_other_files, lambda folder: write_robustness(refused, folder, "")):
        with pytest.raises(OutputError, match=r"robustness\.csv is not of an earlier result: name another folder"):
            write(tmp_path)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["of others\n"]
    (tmp_path / "robustness.csv").unlink()
    write_robustness(refused, tmp_path, "")
    refuse_other_files(tmp_path)


def test_names_of_cases_models_and_warnings_are_shown_as_they_are(tmp_path: Path) -> None:
    hostile = "<b>a|b\x1b[2J"
    result = VariantResult(VARIANTS[0], {hostile: Confusion(1, 1, 1, 1)})
    robustness = Robustness(ModelRef(name=hostile, sha256="0" * 64), 0.5, (result,), (hostile,))
    report, _ = write_robustness(robustness, tmp_path, "groundglass robustness")
    text = report.read_text()
    assert text.count(r"&lt;b>a\|b?[2J") == 3
    assert "<b>" not in text


def test_the_command_prints_a_table_and_writes_a_report(
    folder: Path,
    grey_band: Segmenter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("groundglass.inference.open_model.open_model", lambda *_: grey_band)
    arguments = ("m.onnx", "--data", folder, "--case", CASE)
    short = partial(measure_robustness, variants=VARIANTS[:2])
    monkeypatch.setattr("groundglass.evaluation.robustness.measure_robustness", short)
    code, out, err = run_command(monkeypatch, capsys, "robustness", *arguments, "-o", tmp_path / "out")
    assert (code, err) == (0, "")
    assert "as it is" in out
    assert str(tmp_path / "out" / "robustness.csv") in out.splitlines()
    text = (tmp_path / "out" / "robustness.md").read_text()
    assert f"    groundglass robustness m.onnx --data DATA --case {CASE}\n" in text
    assert str(folder) not in text
    for case, expected, message in (("slices/000", 3, "is a picture"), ("none/*", 3, "no case matches")):
        code, out, err = run_command(monkeypatch, capsys, "robustness", "--data", folder, "--case", case)
        assert (code, out, err.count("\n")) == (expected, "", 1)
        assert message in err
    assert run_command(monkeypatch, capsys, "robustness", "--data", folder)[0] == 2  # --case is required
