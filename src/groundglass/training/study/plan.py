"""A study file, and the trainings that it comes to: rows x protocols x seeds.

STUDY/
    splits/PROTOCOL.json             the parts, made of the prepared folder
    runs/ROW/PROTOCOL/seed-N/        a run folder each (`experiment`); copied here from elsewhere it counts as done
    study.md  table.csv  *.png       what came of it (`report`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from groundglass.data.prepared import read_complete
from groundglass.data.protocols import write_splits
from groundglass.data.splits import Split
from groundglass.errors import ConfigError
from groundglass.training.config import RunConfig, checked, read_toml
from groundglass.training.run import with_prepared_settings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PaperScores(_Section):
    """What the paper reports for a row of its Table 1, in percent."""

    dice: float
    sensitivity: float
    specificity: float


class RowFile(_Section):
    """A row as the study file has it.

    Attributes:
        name: Of the row and of its folder.
        config: A training's configuration; its path is taken from the study file on.
        change: What the row has otherwise, section by section.
        begin: A row above this one: with its training under the same protocol, with the same seed, this one's begins.
        teachers: Rows above this one, whose trainings teach it likewise.
        paper: What the paper reports.
    """

    name: Name
    config: Path
    change: dict[str, Any] = {}
    begin: Name | None = None
    teachers: tuple[Name, ...] = ()
    paper: PaperScores | None = None


class StudyFile(_Section):
    """A study file.

    Attributes:
        name: Of the study.
        protocols: Names of splits, the most telling first; the first one's slices are shown.
        seeds: Of the trainings.
        first: Rows that are trained before the others, under every protocol.
        figure: Rows of Figure 6, each coloured by what it won and lost against the one before; none: all.
        change: What every row has otherwise, section by section; a row's own change counts for more.
        rows: In the order of the table: what is changed step by step.
    """

    name: Name
    protocols: tuple[Name, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    first: tuple[Name, ...] = ()
    figure: tuple[Name, ...] = ()
    change: dict[str, Any] = {}
    rows: tuple[RowFile, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _each_once(self) -> StudyFile:
        names = [row.name for row in self.rows]
        for what, values in (("rows", names), ("protocols", self.protocols), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{what} are named once each")
        for what, some in (("first", self.first), ("figure", self.figure)):
            if not set(some) <= set(names):
                raise ValueError(f"{what} names rows of {', '.join(names)}")
        for i, row in enumerate(self.rows):
            above = names[:i]
            if not {row.begin, *row.teachers} <= {None, *above}:
                raise ValueError(f"begin and teachers of row {row.name} are rows above it: {', '.join(above) or '-'}")
        return self


@dataclass(frozen=True)
class StudyRow:
    """A row of the table: one method.

    Attributes:
        name: Of the row.
        config: Its training; the seed is the job's.
        begin: Name of the row that it begins with; None: by chance.
        teachers: Names of the rows that teach it.
        paper: What the paper reports.
    """

    name: str
    config: RunConfig
    begin: str | None
    teachers: tuple[str, ...]
    paper: PaperScores | None


@dataclass(frozen=True)
class Study:
    """A study: `rows` under each of `protocols` with each of `seeds`; `first` come first, Figure 6 shows `figure`."""

    name: str
    protocols: tuple[str, ...]
    seeds: tuple[int, ...]
    first: tuple[str, ...]
    figure: tuple[str, ...]
    rows: tuple[StudyRow, ...]

    def __repr__(self) -> str:
        rows = ", ".join(row.name for row in self.rows)
        return f"Study({self.name}: {rows} x {', '.join(self.protocols)} x seeds {self.seeds})"


@dataclass(frozen=True)
class TrainingJob:
    """One training of a study, and its scores on the protocol's test part.

    Attributes:
        row: Name of the row.
        protocol: Name of the split.
        seed: Of the training.
        config: As it is trained.
        split: The parts.
        run: The run folder.
        start: Run folder of the job that this one begins with; None: it begins by chance.
        teachers: Run folders of the jobs that teach this one.
    """

    row: str
    protocol: str
    seed: int
    config: RunConfig
    split: Split
    run: Path
    start: Path | None
    teachers: tuple[Path, ...]

    @property
    def done(self) -> bool:
        """Whether it is trained and scored."""
        return (self.run / "test.csv").is_file()

    @property
    def parents(self) -> set[Path]:
        """Run folders of the jobs that come before it."""
        return {each for each in (self.start, *self.teachers) if each}

    @property
    def name(self) -> str:
        """As ROW, PROTOCOL, seed N."""
        return f"{self.row}, {self.protocol}, seed {self.seed}"


def read_study(path: Path) -> Study:
    """Read a study file and the configurations that it names.

    Raises:
        ConfigError: A file is missing or no TOML, a key is unknown, or a value is of the wrong kind.
    """
    content = checked(StudyFile, read_toml(path), str(path))
    rows = []
    for row in content.rows:
        changed = read_toml(path.parent / row.config)
        for change in (content.change, row.change, {"name": row.name}):
            changed = _over(changed, change)
        config = checked(RunConfig, changed, f"{path}, row {row.name}")
        if bool(row.teachers) != bool(config.teachers.weight):
            raise ConfigError(f"{path}, row {row.name}: teachers and change.teachers.weight come together")
        rows.append(StudyRow(row.name, config, row.begin, row.teachers, row.paper))
    figure = content.figure or tuple(row.name for row in rows)
    return Study(content.name, content.protocols, content.seeds, content.first, figure, tuple(rows))


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """The keys of both; where both have one, the tables within are laid over each other and other values replaced."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _over(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def plan(study: Study, prepared: Path, folder: Path) -> tuple[TrainingJob, ...]:
    """The trainings of a study, the most wanted first: seed by seed `first`, then the other rows protocol by protocol.

    The splits are written into the study's folder.

    Args:
        study: What is asked for.
        prepared: A prepared folder.
        folder: The study's folder.

    Raises:
        ConfigError: A protocol is not there, or a row wants the folder prepared otherwise.
        DatasetError: The prepared folder is not whole, or allows no split.
    """
    manifest = read_complete(prepared)
    rows = {row.name: row for row in study.rows}
    configs = {row.name: with_prepared_settings(row.config, manifest) for row in study.rows}
    splits = {split.name: split for split in write_splits(prepared, folder / "splits")}
    for protocol in study.protocols:
        if protocol not in splits:
            raise ConfigError(f"{prepared} allows no protocol {protocol!r}: expected of {', '.join(splits)}")

    def run(row: str, protocol: str, seed: int) -> Path:
        return folder / "runs" / row / protocol / f"seed-{seed}"

    jobs = []
    for row, protocol, seed in _order(study):
        config = configs[row].model_copy(update={"training": replace(configs[row].training, seed=seed)})
        begin, own = rows[row].begin, run(row, protocol, seed)
        start = run(begin, protocol, seed) if begin else None
        teachers = tuple(run(teacher, protocol, seed) for teacher in rows[row].teachers)
        jobs.append(TrainingJob(row, protocol, seed, config, splits[protocol], own, start, teachers))
    return tuple(jobs)


def select_rows(jobs: Sequence[TrainingJob], only: Sequence[str]) -> tuple[TrainingJob, ...]:
    """The jobs of some rows; none named: all.

    Raises:
        ConfigError: There is no such row.
    """
    names = dict.fromkeys(job.row for job in jobs)
    for name in only:
        if name not in names:
            raise ConfigError(f"there is no row {name!r} in the study: expected {', '.join(names)}")
    return tuple(job for job in jobs if job.row in only or not only)


def _order(study: Study) -> Iterator[tuple[str, str, int]]:
    early = [row.name for row in study.rows if row.name in study.first]
    late = [row.name for row in study.rows if row.name not in study.first]
    for seed in study.seeds:
        yield from ((row, protocol, seed) for row in early for protocol in study.protocols)
        yield from ((row, protocol, seed) for protocol in study.protocols for row in late)
