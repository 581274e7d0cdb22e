import csv
import errno
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure
from PIL import Image
from rich.console import Console

from groundglass.errors import OutputError
from groundglass.evaluation import figures
from groundglass.evaluation.evaluate import evaluate
from groundglass.evaluation.figures import shorten
from groundglass.evaluation.report import refuse_other_files, write_report
from groundglass.evaluation.results import Evaluation
from groundglass.evaluation.rules import EMPTY_MASKS, RULES, rules_as_markdown
from groundglass.evaluation.summary import to_json
from groundglass.evaluation.tables import DIGITS, score_table, write_scores
from groundglass.evaluation.targets import EvaluationTarget
from groundglass.files import sha256_of, write_atomic
from groundglass.inference.model_card import read_card
from groundglass.inference.segmenter import Segmenter
from helpers.figure_layout import layout_faults

pytestmark = pytest.mark.thorough

FIGURES = {"slices.png", "bland-altman.png", "lesion-size.png", "precision-recall.png", "reliability.png"}


def strict(text: str) -> Any:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads(text, parse_constant=refuse)


def nulls(node: Any, path: str = "") -> Iterator[str]:
    if node is None:
        yield path
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        yield from nulls(value, f"{path}.{key}".strip("."))


@pytest.fixture(scope="module")
def report(everything: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report") / "new"
    files = write_report(everything, folder)
    assert set(files) == {path for path in folder.rglob("*") if path.is_file()}
    return folder


@pytest.fixture(scope="module")
def lesion_free(targets: dict[str, EvaluationTarget], grey_band: Segmenter) -> Evaluation:
    return evaluate([targets["volumes/5"]], grey_band)


def test_a_report_holds_tables_scores_and_figures(report: Path) -> None:
    names = {"report.md", "scores.json", "slices.csv", "cases.csv", "lesions.csv"}
    assert {path.name for path in report.iterdir()} == names | {"figures"}
    assert {path.name for path in (report / "figures").iterdir()} == FIGURES


def test_the_json_is_strict_and_every_null_has_a_reason(report: Path, everything: Evaluation) -> None:
    scores = strict((report / "scores.json").read_text())
    unknown = scores.pop("unknown")
    assert set(nulls(scores)) == set(unknown)
    assert all(unknown.values())
    assert scores["rules"] == RULES
    assert scores["rules"]["empty masks"] == EMPTY_MASKS
    assert scores["model"] == {
        "name": "grey-band",
        "sha256": "0" * 64,
        "threshold": 0.5,
        "classes": ["lesion", "ground-glass", "consolidation"],
    }
    assert scores["counted"]["slices"] == 4 * 32 + 4 + 1
    assert scores["counted"]["patients"] == 4 + 4 + 1
    whole = scores["pooled"]["whole"]["dice"]
    assert whole["value"] == pytest.approx(everything.pooled_counts["whole"].dice, abs=1e-4)
    low, high = whole["interval_95"]
    assert low <= whole["value"] <= high
    assert unknown["cases.stack/tr.volume_ml"] == "its slices are of different patients"
    assert len(scores["calibration"]["bins"]) == 20
    assert [row["size_class"] for row in scores["lesions"]["px"]] == ["<100 px", "100-1000 px", ">=1000 px", "all"]
    assert scores["volume_ml"]["volumes"] == 4
    assert scores["volume_ml"]["limits_of_agreement_95"] is not None
    assert scores["classes"]["ground-glass"]["pooled"]["dice"]["value"] > 0


def test_nan_is_never_written(everything: Evaluation) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(replace(everything, threshold=float("nan")))


def test_the_csv_files_hold_slices_cases_and_regions(report: Path, everything: Evaluation) -> None:
    slices, cases, lesions = (
        list(csv.DictReader(io.StringIO((report / f"{name}.csv").read_text())))
        for name in ("slices", "cases", "lesions")
    )
    assert (len(slices), len(cases), len(lesions)) == (len(everything.slices), 6, len(everything.regions))
    assert sum(int(row["true_positive"]) for row in slices) == everything.pooled_counts["whole"].true_positive
    free = next(row for row in cases if row["case"] == "volumes/5")
    assert (free["sensitivity"], free["hd95_mm"], free["dice"]) == ("", "", "0.0")
    assert float(free["error_volume_ml"]) == float(free["predicted_volume_ml"]) > 0
    assert float(free["false_positive_ml_per_lesion_free_slice"]) > 0
    assert {row["unit"] for row in lesions} == {"ml", "px"}
    assert "ground-glass_dice" in slices[0]


@pytest.mark.parametrize("name", ["slices.csv", "cases.csv", "lesions.csv"])
def test_the_documentation_names_the_columns_that_are_written(
    report: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "docs" / "hooks"))
    described = import_module("reference").SCORE_COLUMNS[name]
    named = [column for names in described for column in names.split(", ") if not column.startswith("CLASS_")]
    written = (report / name).read_text().splitlines()[0].split(",")
    assert named == [column for column in written if not column.startswith(("ground-glass_", "consolidation_"))]


def test_the_figures_are_not_blank(report: Path) -> None:
    for path in (report / "figures").iterdir():
        with Image.open(path) as image:
            grey = image.convert("L")
            assert min(grey.size) > 400
            assert len(grey.getcolors() or []) > 20


def test_no_word_of_a_figure_lies_over_another_over_an_axis_or_over_data(
    everything: Evaluation, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(figures, "as_png", drawn.append)
    assert set(figures.draw_figures(everything)) == FIGURES
    assert {
        figure.axes[0].get_title(loc="left"): layout_faults(figure) for figure in drawn if layout_faults(figure)
    } == {}


def test_overlapping_words_of_a_figure_are_found() -> None:
    figure = Figure(figsize=(3, 2))
    axes = figure.subplots()
    axes.plot(range(3), label="a legend over the line")
    axes.set_xticks([0, 0.01, 2], ["first", "second", "third"])
    axes.legend(loc="center")
    axes.yaxis.set_label_coords(0.5, 0.5)
    axes.set_ylabel("inside")
    faults = layout_faults(figure)
    assert {"'first' over 'second'", "'inside' over its axes", "a legend over data"} <= set(faults)


def test_the_report_names_every_figure_table_and_rule(report: Path) -> None:
    text = (report / "report.md").read_text()
    for name in FIGURES:
        assert f"](figures/{name})" in text
    for heading in ("Scores", "Class: ground-glass", "Cases", "Lesions by size", "Volume and burden", "Calibration"):
        assert f"## {heading}" in text
    assert all(rule in text for rule in RULES.values())
    assert not {"nan", "inf", "None"} & set(text.replace("|", " ").split())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in rows)


def test_the_documentation_states_exactly_the_rules_of_the_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    block = text.partition("<!-- rules -->\n")[2].partition("\n<!-- end of rules -->")[0]
    assert block.splitlines() == rules_as_markdown()


def test_an_evaluation_without_lesion_has_nulls_with_reasons(lesion_free: Evaluation, tmp_path: Path) -> None:
    files = {path.name: path for path in write_report(lesion_free, tmp_path)}
    scores = strict(files["scores.json"].read_text())
    assert set(nulls({key: value for key, value in scores.items() if key != "unknown"})) == set(scores["unknown"])
    assert scores["pooled"]["whole"]["sensitivity"] == {"value": None, "interval_95": None}
    assert scores["mean_over"]["lesion_slices"]["dice"]["value"] is None
    assert scores["calibration"]["average_precision"] is None
    assert scores["volume_ml"]["limits_of_agreement_95"] is None
    assert scores["unknown"]["volume_ml.limits_of_agreement_95"] == "1 of at least 2 volumes"
    assert scores["unknown"]["pooled.whole.specificity.interval_95"] == "1 of at least 3 patients"
    assert not {"slices.png", "precision-recall.png", "lesion-size.png"} & set(files)
    assert "precision-recall" not in files["report.md"].read_text()


def test_an_evaluation_without_cases_gives_a_report(grey_band: Segmenter, tmp_path: Path) -> None:
    files = write_report(evaluate([], grey_band), tmp_path)
    assert [path.suffix for path in files] == [".md", ".json", ".csv", ".csv", ".csv"]
    strict((tmp_path / "scores.json").read_text())


def test_a_folder_that_cannot_be_created_is_an_output_error(lesion_free: Evaluation, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputError, match="cannot be written"):
        write_report(lesion_free, tmp_path / "file")


def test_a_report_replaces_an_earlier_one_as_a_whole_or_not_at_all(
    lesion_free: Evaluation, grey_band: Segmenter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_report(lesion_free, tmp_path)
    (tmp_path / "figures" / "mine.png").touch()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    written: list[Path] = []

    def fill_the_disk(path: Path, data: bytes, mode: int = 0o666) -> None:
        written.append(path)
        if len(written) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        write_atomic(path, data, mode)

    nothing = evaluate([], grey_band)
    monkeypatch.setattr("groundglass.files.write_atomic", fill_the_disk)
    with pytest.raises(OutputError, match="No space left on device"):
        write_report(nothing, tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    files = write_report(nothing, tmp_path)
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == {*files, tmp_path / "figures" / "mine.png"}


def test_names_in_figures_are_drawn_whatever_bytes_they_hold() -> None:
    assert shorten("M\udcfcller\x1b[31m") == "M?ller?[31m"


def test_files_of_others_are_not_replaced(lesion_free: Evaluation, tmp_path: Path) -> None:
    """As the list of the cases of a dataset: the command is called beside it."""
    (tmp_path / "cases.csv").write_text("image,mask\n")
    for write in (refuse_other_files, partial(write_report, lesion_free)):
        with pytest.raises(OutputError, match=r"cases\.csv is not of an earlier result: name another folder"):
            write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["cases.csv"]
    assert (tmp_path / "cases.csv").read_text() == "image,mask\n"
    (tmp_path / "cases.csv").unlink()
    write_report(lesion_free, tmp_path)
    refuse_other_files(tmp_path)


def test_names_of_models_and_classes_are_shown_as_they_are(lesion_free: Evaluation, tmp_path: Path) -> None:
    hostile = "<script>a</script>"
    evaluation = replace(lesion_free, model=lesion_free.model.model_copy(update={"name": hostile}), classes=(hostile,))
    write_report(evaluation, tmp_path)
    assert "<script" not in (tmp_path / "report.md").read_text()


def test_the_terminal_table_shows_scores_and_volumes(everything: Evaluation) -> None:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(score_table(everything))
    text = console.export_text()
    assert f"{100 * (everything.pooled_counts['whole'].dice or 0):.1f} (" in text
    for name in ("pooled, every slice", "mean of volumes", "volumes/8", "IoU"):
        assert name in text


def test_scores_are_written_into_the_card_and_nothing_else_changes(
    everything: Evaluation, grey_band: Segmenter, tmp_path: Path
) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"weights")
    card = grey_band.card.model_copy(update={"sha256": sha256_of(model), "scores": {"validation": {"dice": 0.5}}})
    model.with_suffix(".json").write_text(card.model_dump_json())
    write_scores(model, everything, "groundglass evaluate m.onnx --data DATA")
    after = read_card(model)
    assert after.scores["validation"] == {"dice": 0.5}
    assert after.scores["command"] == "groundglass evaluate m.onnx --data DATA"
    assert after.scores["test"]["pooled"]["whole"]["dice"] == round(everything.pooled_counts["whole"].dice or 0, DIGITS)
    assert set(after.scores["test"]) == {case.case for case in everything.cases} | {"pooled"}
    assert after.model_copy(update={"scores": {}}) == card.model_copy(update={"scores": {}})
