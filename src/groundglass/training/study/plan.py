"""A study file, and the trainings that it describes: rows x protocols x seeds.

STUDY/
    splits/PROTOCOL.json             the splits, made from the prepared folder
    runs/ROW/PROTOCOL/seed-N/        a run folder for each training (`run`); one copied here from elsewhere counts, too
    study.md  table.csv  *.png       the report (`report`)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from groundglass.data.prepared import read_complete_manifest
from groundglass.data.protocols import write_splits
from groundglass.data.splits import Split
from groundglass.errors import ConfigError
from groundglass.strict_model import StrictModel
from groundglass.training.config import RunConfig, parse_config, read_toml, refuse_renamed_keys, validate
from groundglass.training.run import with_prepared_settings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]


class PaperScores(StrictModel):
    """Scores that the paper reports for a row of its Table 1, in percent."""

    dice: float
    sensitivity: float
    specificity: float


class RowFile(StrictModel):
    """A row in a study file.

    Attributes:
        name: Name of the row and of its folder.
        config: Configuration of the training; the path is relative to the study file.
        change: Values in which the row differs from `config`, section by section.
        begin: Earlier row whose weights (same protocol and seed) initialise this one.
        teachers: Earlier rows whose trainings (same protocol and seed) are distilled into this one.
        paper: Scores that the paper reports.
    """

    name: Name
    config: Path
    change: dict[str, Any] = Field(default_factory=dict)
    begin: Name | None = None
    teachers: tuple[Name, ...] = ()
    paper: PaperScores | None = None


class StudyFile(StrictModel):
    """A study file.

    Attributes:
        name: Name of the study.
        protocols: Names of the splits, the most informative first; Figure 6 shows slices of the first one.
        seeds: Seeds of the trainings.
        first: Rows that are trained before the others, under every protocol.
        figure: Rows of Figure 6, each coloured by its gains and losses against the one before; by default all rows.
        change: Values in which every row differs from its configuration, section by section; a row's own `change` has
            priority.
        rows: Rows in the order of the table.
    """

    name: Name
    protocols: tuple[Name, ...] = Field(min_length=1)
    seeds: tuple[Annotated[int, Field(ge=0)], ...] = Field((0,), min_length=1)
    first: tuple[Name, ...] = ()
    figure: tuple[Name, ...] = ()
    change: dict[str, Any] = Field(default_factory=dict)
    rows: tuple[RowFile, ...] = Field(min_length=1)

    @field_validator("protocols")
    @classmethod
    def _not_renamed(cls, protocols: tuple[str, ...]) -> tuple[str, ...]:
        for protocol in protocols:
            if protocol.partition("-")[0] == "ship":  # version 0.1
                raise ValueError(f"{protocol} is now called {protocol.replace('ship', 'final', 1)}")
        return protocols

    @model_validator(mode="after")
    def _consistent(self) -> StudyFile:
        names = [row.name for row in self.rows]
        for key, values in (("rows", names), ("protocols", self.protocols), ("seeds", self.seeds)):
            if len(set(values)) < len(values):
                raise ValueError(f"{key} must be named once each")
        for key, selected in (("first", self.first), ("figure", self.figure)):
            if not set(selected) <= set(names):
                raise ValueError(f"{key} must name rows of this study: {', '.join(names)}")
        for i, row in enumerate(self.rows):
            if not {row.begin, *row.teachers} <= {None, *names[:i]}:
                earlier = ", ".join(names[:i]) or "there are none"
                raise ValueError(f"begin and teachers of row {row.name} must name earlier rows: {earlier}")
        return self


@dataclass(frozen=True)
class StudyRow:
    """A row of the table, which is one method.

    Attributes:
        name: Name of the row.
        config: Configuration of its trainings, except for the seed.
        begin: Name of the row whose weights initialise this one; None means random weights.
        teachers: Names of the rows that are distilled into this one.
        paper: Scores that the paper reports.
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

    def job_order(self) -> Iterator[tuple[str, str, int]]:
        """Yield (row, protocol, seed) seed by seed: first the rows of `first`, then the others protocol by protocol."""
        early = [row.name for row in self.rows if row.name in self.first]
        late = [row.name for row in self.rows if row.name not in self.first]
        for seed in self.seeds:
            yield from ((row, protocol, seed) for row in early for protocol in self.protocols)
            yield from ((row, protocol, seed) for protocol in self.protocols for row in late)


@dataclass(frozen=True)
class TrainingJob:
    """One training of a study, and its scores on the protocol's test part.

    Attributes:
        row: Name of the row.
        protocol: Name of the split.
        seed: Seed of the training.
        config: Complete configuration of the training.
        split: The split.
        run: The run folder.
        start: Run folder of the job whose weights initialise this one; None means random weights.
        teachers: Run folders of the jobs that are distilled into this one.
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
        """True once the job is trained and scored."""
        return (self.run / "test.csv").is_file()

    @property
    def parents(self) -> set[Path]:
        """Run folders of the jobs that must be finished before this one."""
        return {run for run in (self.start, *self.teachers) if run}

    @property
    def name(self) -> str:
        """The job's name for messages: ROW, PROTOCOL, seed N."""
        return f"{self.row}, {self.protocol}, seed {self.seed}"


def read_study(path: Path) -> Study:
    """Read a study file and the configurations that it names.

    Raises:
        ConfigError: A file is missing or not TOML, a key is unknown or was renamed, or a value is invalid.
    """
    file = validate(StudyFile, read_toml(path), str(path))
    refuse_renamed_keys(file.change, str(path), table="change.")
    rows = []
    for row in file.rows:
        location, config_path = f"{path}, row {row.name}", path.parent / row.config
        refuse_renamed_keys(row.change, location, table="change.")
        content = read_toml(config_path)
        refuse_renamed_keys(content, str(config_path))
        for change in (file.change, row.change, {"name": row.name}):
            content = _merge(content, change)
        config = parse_config(content, location)
        if bool(row.teachers) != bool(config.teachers.weight):
            raise ConfigError(f"{location}: teachers and change.teachers.weight must be set together")
        rows.append(StudyRow(row.name, config, row.begin, row.teachers, row.paper))
    figure = file.figure or tuple(row.name for row in rows)
    return Study(file.name, file.protocols, file.seeds, file.first, figure, tuple(rows))


def _merge(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Return the keys of both; tables that are in both are merged, other values are those of `change`."""
    merged = dict(base)
    for key, value in change.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def plan(study: Study, prepared: Path, folder: Path) -> tuple[TrainingJob, ...]:
    """Plan the trainings of a study in the order of `Study.job_order`, and write its splits into its folder.

    Args:
        study: The study.
        prepared: A prepared folder.
        folder: The study's folder.

    Raises:
        ConfigError: The prepared folder does not allow a protocol, or a row needs other prepared settings.
        DatasetError: The prepared folder is incomplete, or allows no split.
    """
    manifest = read_complete_manifest(prepared)
    rows = {row.name: row for row in study.rows}
    configs = {row.name: with_prepared_settings(row.config, manifest) for row in study.rows}
    splits = {split.name: split for split in write_splits(prepared, folder / "splits")}
    for protocol in study.protocols:
        if protocol not in splits:
            raise ConfigError(f"{prepared} allows no protocol {protocol!r}: expected any of {', '.join(splits)}")

    def run_folder(row: str, protocol: str, seed: int) -> Path:
        return folder / "runs" / row / protocol / f"seed-{seed}"

    jobs = []
    for name, protocol, seed in study.job_order():
        row, config = rows[name], configs[name]
        config = config.model_copy(update={"training": replace(config.training, seed=seed)})
        run = run_folder(name, protocol, seed)
        start = run_folder(row.begin, protocol, seed) if row.begin else None
        teachers = tuple(run_folder(teacher, protocol, seed) for teacher in row.teachers)
        jobs.append(TrainingJob(name, protocol, seed, config, splits[protocol], run, start, teachers))
    return tuple(jobs)


def select_rows(jobs: Sequence[TrainingJob], only: Sequence[str]) -> tuple[TrainingJob, ...]:
    """Return the jobs of some rows, or all jobs if no row is named.

    Raises:
        ConfigError: The study has no such row.
    """
    names = dict.fromkeys(job.row for job in jobs)
    for name in only:
        if name not in names:
            raise ConfigError(f"the study has no row {name!r}: expected any of {', '.join(names)}")
    return tuple(job for job in jobs if job.row in only or not only)
