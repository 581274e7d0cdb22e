"""A study file and what it comes to."""

from pathlib import Path

import pytest

from groundglass.data.protocols import RECIPE_FOLDS
from groundglass.errors import ConfigError
from groundglass.network.losses import LossConfig
from groundglass.training.study.plan import PaperScores as Paper
from groundglass.training.study.plan import Study, StudyRow, _order, read_study

CONFIGS = Path(__file__).parents[3] / "configs"
TABLE_1 = {
    "baseline-dice": Paper(dice=80.4, sensitivity=75.7, specificity=99.8),
    "baseline-focal-tversky": Paper(dice=81.1, sensitivity=78.3, specificity=99.7),
    "attention-dice": Paper(dice=81.5, sensitivity=76.7, specificity=99.7),
    "attention-focal-tversky": Paper(dice=83.1, sensitivity=86.7, specificity=99.3),
}
ROW = """
[[rows]]
name = "one"
config = "base.toml"
"""
TAUGHT = "change.teachers.weight = 0.5\nchange.loss.cross_entropy = 0.5\n"


def study_file(folder: Path, text: str) -> Path:
    (folder / "base.toml").write_text("name = 'base'\n[training]\nlearning_rate = 1e-3\nepochs = 7\n")
    path = folder / "study.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["small", "paper"])
def test_the_rows_of_table_1_differ_by_attention_and_loss_alone(name: str) -> None:
    study = read_study(CONFIGS / f"study-{name}.toml")
    assert study.figure == ("baseline-dice", "baseline-focal-tversky", "attention-focal-tversky")
    rows = [row for row in study.rows if row.paper]
    assert {row.name: row.paper for row in rows} == TABLE_1
    for row in rows:
        attention, loss = row.name.split("-", 1)
        assert row.config.network.attention == (attention == "attention")
        assert row.config.loss == (LossConfig(0.5, 0.5, 1.0) if loss == "dice" else LossConfig(gamma=1.3333333))
    alike = [
        row.config.model_copy(update={"name": "", "network": None, "loss": None}).model_dump_json(warnings=False)
        for row in rows
    ]
    assert len(set(alike)) == 1


def test_the_peers_are_trained_as_the_papers_network_is() -> None:
    rows = {row.name: row.config for row in read_study(CONFIGS / "study-small.toml").rows}
    proposed = rows["attention-focal-tversky"]
    for name in ("DynUNet", "AttentionUnet", "BasicUNet"):
        assert rows[name] == proposed.model_copy(update={"name": name, "baseline": name})


def test_recipes_are_chosen_apart_from_the_public_test_part() -> None:
    study = read_study(CONFIGS / "study-recipe.toml")
    assert study.protocols == tuple(f"final-fold-{fold}" for fold in range(1, RECIPE_FOLDS + 1))


def test_each_row_of_the_recipe_changes_one_thing() -> None:
    rows = {row.name: row.config.model_dump(exclude={"name"}) for row in read_study(CONFIGS / "study-recipe.toml").rows}
    common = rows.pop("every-slice")
    changed = {name: [part for part in common if row[part] != common[part]] for name, row in rows.items()}
    assert changed.pop("lesion-slices") == ["loss", "sampling"]  # the paper's
    assert changed.pop("between") == ["field", "augment"]  # "scanners", between neighbours
    assert {name: len(parts) for name, parts in changed.items()} == dict.fromkeys(changed, 1)


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ('teachers = ["one"]\n', "teachers and change.teachers.weight come together"),
        (TAUGHT, "teachers and change.teachers.weight come together"),
        (f'teachers = ["two"]\n{TAUGHT}', "begin and teachers of row two are rows above it: one"),
        ('begin = "two"\n', "begin and teachers of row two are rows above it: one"),
        ('begin = "three"\n', "begin and teachers of row two are rows above it: one"),
        ('teachers = ["one"]\nchange.teachers.weight = 1.5\n', "a weight of teachers is from 0 to 1"),
        ('teachers = ["one"]\nchange.teachers.weight = 0.5\n', "wants loss.cross_entropy above 0"),
    ],
)
def test_a_row_builds_on_rows_above_it(tmp_path: Path, changed: str, expected: str) -> None:
    text = f'name = "s"\nprotocols = ["A-slice"]\n{ROW}[[rows]]\nname = "two"\nconfig = "base.toml"\n{changed}'
    with pytest.raises(ConfigError, match=expected):
        read_study(study_file(tmp_path, text))


def test_the_papers_scale_is_the_papers() -> None:
    for row in read_study(CONFIGS / "study-paper.toml").rows:
        training, field = row.config.training, row.config.field
        assert row.config.network.widths == (32, 64, 128, 256, 512)
        assert (field.size, field.view) == ((512, 512), "slice")
        assert (training.optimiser, training.learning_rate, training.lr_patience, training.early_stopping_patience) == (
            "adam",
            5e-5,
            10,
            50,
        )


def test_changes_lie_over_each_other(tmp_path: Path) -> None:
    study = read_study(
        study_file(
            tmp_path,
            'name = "s"\nprotocols = ["A-slice"]\n[change.training]\nepochs = 9\nseed = 3\n'
            + ROW
            + "[rows.change.training]\nepochs = 11\n",
        )
    )
    training = study.rows[0].config.training
    assert (training.learning_rate, training.epochs, training.seed) == (1e-3, 11, 3)
    assert study.rows[0].config.name == "one"


def test_what_is_wanted_most_comes_first() -> None:
    row = {name: StudyRow(name, None, None, (), None) for name in ("a", "b", "c")}  # type: ignore[arg-type]
    study = Study("s", ("A", "B"), (0, 1), ("c",), (), tuple(row.values()))
    assert ["".join(map(str, job)) for job in _order(study)] == (
        ["cA0", "cB0", "aA0", "bA0", "aB0", "bB0", "cA1", "cB1", "aA1", "bA1", "aB1", "bB1"]
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "s"\nprotocols = ["A"]\nrow = 1\n' + ROW, "row"),
        ('name = "s"\nprotocols = []\n' + ROW, "protocols"),
        ('name = "s"\nprotocols = ["A"]\n', "rows"),
        ('name = "s"\nprotocols = ["A", "A"]\n' + ROW, "once"),
        ('name = "s"\nprotocols = ["A"]\nseeds = [-1]\n' + ROW, "seeds"),
        ('name = "s"\nprotocols = ["A"]\nfirst = ["two"]\n' + ROW, "first names rows of one"),
        ('name = "s"\nprotocols = ["A"]\nfigure = ["two"]\n' + ROW, "figure names rows of one"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW.replace('"one"', '"../one"'), "name"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW + "[rows.change.training]\nepoch = 1\n", "row one: .*epoch"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW.replace("base", "other"), "other.toml cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_study(study_file(tmp_path, text))
