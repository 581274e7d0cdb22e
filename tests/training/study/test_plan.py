"""Study files and the trainings that they describe."""

from pathlib import Path

import pytest

from groundglass.data.protocols import FINAL_FOLDS
from groundglass.errors import ConfigError
from groundglass.network.losses import LossConfig
from groundglass.training.study.plan import PaperScores as Paper
from groundglass.training.study.plan import Study, StudyRow, read_study

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
def test_the_rows_of_table_1_differ_only_in_attention_and_loss(name: str) -> None:
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


def test_the_baselines_are_trained_like_the_papers_network() -> None:
    rows = {row.name: row.config for row in read_study(CONFIGS / "study-small.toml").rows}
    proposed = rows["attention-focal-tversky"]
    for name in ("DynUNet", "AttentionUnet", "BasicUNet"):
        assert rows[name] == proposed.model_copy(update={"name": name, "baseline": name})


def test_recipes_are_chosen_on_the_final_folds() -> None:
    study = read_study(CONFIGS / "study-recipe.toml")
    assert study.protocols == tuple(f"final-fold-{fold}" for fold in range(1, FINAL_FOLDS + 1))


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
        ('teachers = ["one"]\n', "teachers and change.teachers.weight must be set together"),
        (TAUGHT, "teachers and change.teachers.weight must be set together"),
        (f'teachers = ["two"]\n{TAUGHT}', "begin and teachers of row two must name earlier rows: one"),
        ('begin = "two"\n', "begin and teachers of row two must name earlier rows: one"),
        ('begin = "three"\n', "begin and teachers of row two must name earlier rows: one"),
        ('teachers = ["one"]\nchange.teachers.weight = 1.5\n', "the weight of the teachers must be from 0 to 1"),
        ('teachers = ["one"]\nchange.teachers.weight = 0.5\n', "needs loss.cross_entropy above 0"),
    ],
)
def test_a_row_builds_on_earlier_rows(tmp_path: Path, changed: str, expected: str) -> None:
    text = f'name = "s"\nprotocols = ["A-slice"]\n{ROW}[[rows]]\nname = "two"\nconfig = "base.toml"\n{changed}'
    with pytest.raises(ConfigError, match=expected):
        read_study(study_file(tmp_path, text))


def test_the_study_at_the_papers_scale_has_the_papers_settings() -> None:
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


def test_a_rows_change_has_priority_over_the_studys(tmp_path: Path) -> None:
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


def test_the_first_rows_come_first_for_every_seed() -> None:
    row = {name: StudyRow(name, None, None, (), None) for name in ("a", "b", "c")}  # type: ignore[arg-type]
    study = Study("s", ("A", "B"), (0, 1), ("c",), (), tuple(row.values()))
    assert ["".join(map(str, job)) for job in study.job_order()] == (
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
        ('name = "s"\nprotocols = ["A"]\nfirst = ["two"]\n' + ROW, "first must name rows of this study: one"),
        ('name = "s"\nprotocols = ["A"]\nfigure = ["two"]\n' + ROW, "figure must name rows of this study: one"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW.replace('"one"', '"../one"'), "name"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW + "[rows.change.training]\nepoch = 1\n", "row one: .*epoch"),
        ('name = "s"\nprotocols = ["A"]\n' + ROW.replace("base", "other"), "other.toml cannot be read"),
    ],
)
def test_an_invalid_study_file_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        read_study(study_file(tmp_path, text))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("[change.draw]\nsamples = 1\n" + ROW, "study.toml: the key change.draw is now called change.sampling"),
        (ROW + 'change = { peer = "DynUNet" }\n', "row one: the key change.peer is now called change.baseline"),
        (
            ROW + "change = { training = { halve_after = 2 } }\n",
            "row one: the key change.training.halve_after is now called change.training.lr_patience",
        ),
        (
            ROW + "[rows.change.augment]\nalone = 0.5\n",
            "row one: the key change.augment.alone is now called change.augment.drop_neighbours_prob",
        ),
    ],
)
def test_an_old_key_in_a_change_is_refused_with_its_new_name(tmp_path: Path, table: str, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"{message}$"):
        read_study(study_file(tmp_path, 'name = "s"\nprotocols = ["A-slice"]\n' + table))


def test_an_old_key_in_the_configuration_of_a_row_is_refused_with_its_new_name(tmp_path: Path) -> None:
    path = study_file(tmp_path, 'name = "s"\nprotocols = ["A-slice"]\n' + ROW)
    (tmp_path / "base.toml").write_text("name = 'base'\n[training]\nstop_after = 3\n")
    with pytest.raises(
        ConfigError, match=r"base\.toml: the key training.stop_after is now called training.early_stopping_patience$"
    ):
        read_study(path)


@pytest.mark.parametrize(("old", "new"), [("ship", "final"), ("ship-fold-1", "final-fold-1")])
def test_an_old_protocol_is_refused_with_its_new_name(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(ConfigError, match=rf"protocols: Value error, {old} is now called {new}$"):
        read_study(study_file(tmp_path, f'name = "s"\nprotocols = ["{old}"]\n{ROW}'))
