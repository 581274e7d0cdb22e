"""Slices and colours of Figure 6, and the learning curves."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure

from groundglass.data.slices import Slices
from groundglass.data.splits import Split
from groundglass.training.config import read_config
from groundglass.training.study import figures
from groundglass.training.study.figures import BETTER, UNCHANGED, WORSE, choose_slices, colour_changes
from groundglass.training.study.plan import TrainingJob
from helpers.figure_layout import layout_faults


def lesions(*pixels: int) -> Slices:
    """Return one slice of each of the patients a, b, c, ..., with these numbers of lesion pixels."""
    labels = np.zeros((len(pixels), 8, 8), dtype=np.uint8)
    for label, count in zip(labels, pixels, strict=True):
        label.ravel()[:count] = 1
    names = np.array(list("abcdefghij")[: len(pixels)])
    n = np.arange(len(pixels))
    return Slices(np.zeros_like(labels, dtype=np.int16), labels, names, n, names, np.ones(len(pixels)))


def test_three_slices_with_much_lesion_and_two_with_little() -> None:
    assert sorted(choose_slices(lesions(60, 1, 30, 50, 5, 40, 3, 20)).tolist()) == [0, 1, 3, 5, 6]


def test_the_patients_are_different_while_there_are_enough() -> None:
    pixels = (60, 59, 58, 50, 40, 2, 1)
    patients = np.array(list("aaabcde"))
    chosen = choose_slices(replace(lesions(*pixels), patient=patients))
    assert set(patients[chosen[:3]]) == {"a", "b", "c"}


def test_changes_are_coloured_as_better_or_worse() -> None:
    truth = np.array([[1, 1, 1, 0, 0, 0]], dtype=bool)
    before = np.array([[1, 0, 1, 0, 1, 1]], dtype=bool)
    now = np.array([[1, 1, 0, 1, 0, 1]], dtype=bool)
    expected = (UNCHANGED, BETTER, WORSE, WORSE, BETTER, UNCHANGED)
    painted = colour_changes(now, before, truth)[0]
    for pixel, colour in zip(painted, expected, strict=True):
        assert np.allclose(pixel[:3], to_rgb(colour), atol=0.01)
    assert np.array_equal(colour_changes(now, None, truth)[0, :, 3] > 0, now[0])


ROWS = ("baseline, Dice loss", "baseline, focal Tversky loss", "attention and focal Tversky loss")


def learning_curves(epochs: int, folder: Path, monkeypatch: pytest.MonkeyPatch, rows: tuple[str, ...] = ROWS) -> Figure:
    """Draw the curves of rows under three protocols."""
    drawn: list[Figure] = []
    config = read_config(Path(__file__).parents[3] / "configs" / "debug.toml")
    split = Split(name="s", protocol="B", rule="none", train=("a",), validation=("b",), test=("c",))
    monkeypatch.setattr(figures, "as_png", drawn.append)
    jobs = []
    for protocol in ("A-slice", "B-patient-fold-1", "D-external"):
        for row in rows:
            run = folder / protocol / row
            run.mkdir(parents=True)
            lines = [f"{epoch},{1 / (epoch + 1)},{1.2 / (epoch + 1)},{epoch / 120}" for epoch in range(epochs)]
            (run / "metrics.csv").write_text("\n".join(("epoch,loss,validation_loss,validation_dice", *lines)))
            jobs.append(TrainingJob(row, protocol, 0, config, split, run, None, ()))
    figures.draw_learning_curves(jobs)
    assert len(drawn) == 1
    return drawn[0]


def test_each_of_many_rows_has_a_colour_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tuple(f"row {number}, $not a formula" for number in range(13))  # as configs/study-recipe.toml has
    figure = learning_curves(3, tmp_path, monkeypatch, rows)
    assert len({line.get_color() for line in figure.legends[0].get_lines()}) == 13
    assert layout_faults(figure) == []


def test_names_of_rows_stand_above_their_own_column_of_the_comparison(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[Figure] = []
    rows = ("baseline and Dice loss, 2.5-D, $half$ width", "attention and focal Tversky loss, 2.5-D, half width")
    config = read_config(Path(__file__).parents[3] / "configs" / "debug.toml")
    split = Split(name="s", protocol="B", rule="none", train=("b",), validation=("c",), test=("a",))
    shown = lesions(30, 20)
    shown.hu[:, 1:-1] = -500
    monkeypatch.setattr(figures, "read_prepared", lambda _: (None, shown))
    monkeypatch.setattr(figures, "resolve_split", lambda *_: SimpleNamespace(test=np.ones(len(shown), dtype=bool)))
    monkeypatch.setattr(figures, "_predict", lambda _, slices, indices: slices.where(indices).labels > 0)
    monkeypatch.setattr(figures, "as_png", drawn.append)
    figures.draw_comparison([TrainingJob(row, "B", 0, config, split, tmp_path, None, ()) for row in rows], tmp_path)
    assert layout_faults(drawn[0]) == []


@pytest.mark.parametrize("epochs", [1, 2, 120])
def test_no_word_of_the_learning_curves_lies_over_another_over_an_axis_or_over_data(
    epochs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert layout_faults(learning_curves(epochs, tmp_path, monkeypatch)) == []


@pytest.mark.parametrize(("epochs", "ticks"), [(1, ["1"]), (3, ["1", "2", "3"]), (120, ["0", "20", "40"])])
def test_epochs_are_labelled_by_whole_numbers_and_a_single_one_is_seen(
    epochs: int, ticks: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    figure = learning_curves(epochs, tmp_path, monkeypatch)
    figure.draw_without_rendering()
    axes = figure.axes[3]
    low, high = axes.get_xlim()
    shown = [tick.label1.get_text() for tick in axes.xaxis.get_major_ticks() if low <= tick.get_loc() <= high]
    assert shown[: len(ticks)] == ticks
    assert (axes.lines[0].get_marker() == "o") == (epochs < 10)
