"""Pages of the reference that are generated from the program: commands, configuration, findings, columns, model."""

from __future__ import annotations

import dataclasses
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from typing import Any, get_args

import typer.main
from pydantic import BaseModel

import groundglass.errors
from groundglass.apps.batch.records import ItemRecord, KeyNumbers
from groundglass.apps.batch.summary import summary_columns
from groundglass.apps.follow import CHANGE_COLUMNS, VISIT_COLUMNS
from groundglass.cli import app
from groundglass.inference.model_card import BUNDLED, ModelCard, bundled_model, read_card
from groundglass.report.findings import Findings
from groundglass.report.follow_up import Visit
from groundglass.training.config import RunConfig

_UNITS = {"_ml": "ml", "_percent": "%", "_points": "percentage points", "_mm": "mm", "_hu": "HU", "_px": "pixels"}
_UNITS |= {"_degrees": "degrees", "_prob": "probability", "seconds": "s"}
_CHANGES = {
    "change_ml": "Change of the lesion volume since the scan before.",
    "change_ml_low": "Lower end of its interval of 95 % of repeats.",
    "change_ml_high": "Upper end of its interval.",
    "change_points": "Change of the share of the lung since the scan before.",
    "change_points_low": "Lower end of its interval of 95 % of repeats.",
    "change_points_high": "Upper end of its interval.",
}
_COUNTS = {
    "true_positive": "Pixels that model and reference mark.",
    "false_positive": "Pixels that the model alone marks.",
    "false_negative": "Pixels that the reference alone marks.",
    "true_negative": "Pixels that neither marks.",
    "dice, sensitivity, specificity, precision, iou": "Scores of these counts, from 0 to 1; empty where undefined.",
}
_OF_CLASSES = {"CLASS_true_positive to CLASS_iou": "The same for each class of a model with classes."}
_CASE = {"case": "Name of the case.", "patient": "Its patient."}
SCORE_COLUMNS = {
    "slices.csv": _CASE
    | {
        "slice": "Number of the slice from 0 at the feet, in upright axial slices.",
        "slice_in_file": "Number of the slice from 0 in the order of the file.",
        "has_lesion": "1 where the reference shows lesion, else 0.",
        "looked_at": "1 where the network looked, else 0.",
    }
    | _COUNTS
    | _OF_CLASSES,
    "cases.csv": _CASE
    | {"slices": "Number of slices that are scored.", "lesion_slices": "Those of them with lesion in the reference."}
    | _COUNTS
    | {
        "hd95_mm": "95th percentile of the distances between the surfaces.",
        "surface_dice": "Share of the surfaces within 2 mm of each other, from 0 to 1.",
        "predicted_volume_ml, reference_volume_ml, error_volume_ml": "Volumes, and the first minus the second.",
        "predicted_burden_percent, reference_burden_percent, error_burden_percent": "The same of the share.",
        "false_positive_ml": "What the model marks in slices without lesion.",
        "false_positive_ml_per_lesion_free_slice": "The same for each of these slices.",
    }
    | _OF_CLASSES,
    "lesions.csv": _CASE
    | {
        "of": "`reference` for a lesion, `prediction` for a region that the model marks.",
        "size": "Its size.",
        "unit": "`ml`, or `px` for slices of unknown spacing.",
        "size_class": "The class of that size.",
        "slice": "The slice of its centre, from 0 at the feet.",
        "overlap": "Share of it that the other marks too, from 0 to 1.",
        "hit": "1 if a lesion is found, or a region is right; else 0.",
    },
}
ROBUSTNESS_COLUMNS = (
    {
        "variant": "Name of the change.",
        "case": "Name of the case; `pooled` for all of them together.",
        "refused": "Why the changed volume was refused; of `pooled`, the cases that were.",
    }
    | _COUNTS
    | {"dice_difference": "Dice minus that of the unchanged volume."}
)
_FIELD = re.compile(r"^    (\w+): ((?:.|\n(?=        |\n))+)", re.MULTILINE)
_NOTE = "This page is generated from the program.\n"


def command_page() -> str:
    """Describe every command with its arguments and options."""
    lines = ["# Commands and options", "", _NOTE]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands.items():
        usage = [_argument(each) for each in command.params if each.param_type_name == "argument"]
        lines += [f"## groundglass {name}", "", command.help, "", "```text"]
        lines += [" ".join(["groundglass", name, *usage, "[OPTIONS]"]), "```", ""]
        lines += _table(("", "meaning", "default"), map(_option, _described(command.params)))
    return "\n".join(lines)


def _described(parameters: Iterable[Any]) -> Iterator[Any]:
    return (parameter for parameter in parameters if parameter.name != "help")


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name.upper()).removesuffix("...") + ("..." if parameter.nargs < 0 else "")
    return name if parameter.required else f"[{name}]"


def _option(parameter: Any) -> tuple[str, str, str]:
    if parameter.param_type_name == "argument":
        name = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        kind = parameter.type_descriptor.annotation
        choices = "|".join(map(str, kind)) if inspect.isclass(kind) and issubclass(kind, Enum) else ""
        value = "" if parameter.is_flag else parameter.metavar or choices
        names = sorted(parameter.opts, key=len)
        name = ", ".join(f"`{each} {value}`" if each == names[-1] and value else f"`{each}`" for each in names)
    default = parameter.show_default if isinstance(parameter.show_default, str) else parameter.default
    shown = "required" if parameter.required else _plain(default)
    return name, parameter.help or "", shown


def _plain(default: object) -> str:
    if isinstance(default, tuple | list):
        return " ".join(map(_plain, default))
    return str(getattr(default, "value", default))


def findings_page() -> str:
    """Describe `findings.json` field by field."""
    schema = Findings.model_json_schema()
    lines = ["# The fields of findings.json", "", _NOTE]
    lines += [
        "A value that is not known is `null`, never 0, and `unknown` gives the reason under the field's path. Arrays",
        "over slices are in the order of the file; positions are millimetres towards the patient's left, back and head",
        "(LPS). [findings.schema.json](findings.schema.json) is the JSON Schema.",
        "",
    ]
    lines += _table(("field", "type", "unit", "meaning"), _fields(Findings, schema, ""))
    return "\n".join(lines)


def findings_schema() -> str:
    """Return the JSON Schema of `findings.json`."""
    schema = Findings.model_json_schema()
    return json.dumps(schema, indent=2).replace('"schema_number"', '"schema"') + "\n"


def _fields(model: type[BaseModel], schema: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, str, str, str]]:
    described = _attributes(model)
    for name, field in model.model_fields.items():
        path = prefix + ("schema" if name == "schema_number" else name)
        inner = _model_within(field.annotation)
        text = described.get(name) or (inner and _summary(inner)) or _attributes(Findings).get(name, "")
        properties = schema["properties"] if not prefix else schema["$defs"][model.__name__]["properties"]
        yield f"`{path}`", _type(properties[name]), _unit(name), text
        if inner is not None:
            is_list = "array" in _type(properties[name])
            yield from _fields(inner, schema, f"{path}[]." if is_list else f"{path}.")


def _model_within(annotation: Any) -> type[BaseModel] | None:
    """Return the record that a field holds, alone, in a list or instead of null; None if it holds plain values."""
    if inspect.isclass(annotation) and not get_args(annotation):
        return annotation if issubclass(annotation, BaseModel) else None
    return next(filter(None, map(_model_within, get_args(annotation))), None)


def _type(schema: Mapping[str, Any]) -> str:
    if "anyOf" in schema:
        return " or ".join(_type(part) for part in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if "const" in schema:
        return f"`{schema['const']}`"
    if schema.get("type") == "array":
        items = schema.get("prefixItems")
        inner = _type(schema["items"]) if isinstance(schema.get("items"), Mapping) else ""
        return f"array of {len(items)} {_type(items[0])}s" if items else f"array of {inner}s"
    if "$ref" in schema:
        return "object"
    return str(schema.get("format") or schema.get("type", "any"))


def _unit(name: str) -> str:
    name = re.sub("_(low|high)$", "", name)
    return next((unit for end, unit in _UNITS.items() if name.endswith(end)), "")


def configuration_page() -> str:
    """Describe the keys of a training's configuration."""
    lines = ["# Configuration of a training", "", _NOTE]
    lines += ["A TOML file with a section for each part; `configs/` holds examples. Unknown keys are refused.", ""]
    sections: list[tuple[str, type[Any]]] = []
    rows = []
    described = _attributes(RunConfig)
    for name, field in RunConfig.model_fields.items():
        if inspect.isclass(field.annotation) and _is_section(field.annotation):
            sections.append((name, field.annotation))
            continue
        default = "required" if field.is_required() else _toml(field.default)
        rows.append((f"`{name}`", default, described.get(name, "")))
    lines += _table(("key", "default", "meaning"), rows)
    for name, section in sections:
        lines += [f"## [{name}]", "", described.get(name, ""), ""]
        lines += _table(("key", "default", "meaning"), _keys(section))
    return "\n".join(lines)


def _is_section(annotation: type[Any]) -> bool:
    return dataclasses.is_dataclass(annotation) or issubclass(annotation, BaseModel)


def _keys(section: type[Any]) -> Iterator[tuple[str, str, str]]:
    described, defaults = _attributes(section), section()
    names = section.model_fields if issubclass(section, BaseModel) else [f.name for f in dataclasses.fields(section)]
    for name in names:
        yield f"`{name}`", _toml(getattr(defaults, name)), described.get(name, "")


def _toml(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, str):
        return f'`"{value}"`'
    return f"`{list(value)}`" if isinstance(value, tuple) else f"`{value}`"


def column_page() -> str:
    """Describe the columns of the CSV files."""
    lines = ["# Columns of the CSV files", "", _NOTE, "An empty cell is unknown.", ""]
    described = {**_attributes(ItemRecord), **_attributes(KeyNumbers)}
    rows = [(f"`{name}`", _unit(name), described.get(name, "")) for name in summary_columns()]
    lines += ["## summary.csv of batch", "", "With `--pseudonyms` without `source`. [More about it](../batch.md).", ""]
    lines += _table(("column", "unit", "meaning"), rows)
    described = _attributes(Visit) | _CHANGES
    rows = [(f"`{name}`", _unit(name), described.get(name, "")) for name in (*VISIT_COLUMNS, *CHANGE_COLUMNS)]
    lines += ["## follow.csv of follow", "", "An interval is written as `LOW to HIGH`.", ""]
    lines += _table(("column", "unit", "meaning"), rows)
    tables = {f"{file} of evaluate": columns for file, columns in SCORE_COLUMNS.items()}
    for title, columns in (tables | {"robustness.csv of robustness": ROBUSTNESS_COLUMNS}).items():
        lines += [f"## {title}", "", "[The rules of scoring](../evaluation.md#rules).", ""]
        named = ((name.split(", "), text) for name, text in columns.items())
        rows = [(", ".join(f"`{each}`" for each in names), _unit(names[0]), text) for names, text in named]
        lines += _table(("column", "unit", "meaning"), rows)
    return "\n".join(lines)


def exit_code_page() -> str:
    """Describe the exit codes, and the errors that lead to them."""
    codes = [
        ("0", "done"),
        ("1", "the program failed or was interrupted"),
        ("2", "wrong usage, or a bad configuration"),
        ("3", "the input was refused: the line says what was found, what was expected and how to fix it"),
        ("4", "some scans of a batch, or series of a PACS, failed; the others are done"),
    ]
    doc = inspect.getdoc(groundglass.errors) or ""
    tree = doc.split("\n\n")[1]
    lines = ["# Exit codes and errors", "", _NOTE, *_table(("exit code", "meaning"), codes)]
    lines += ["Every failure is one line on stderr; stdout holds results alone. In Python, each is an error:", ""]
    return "\n".join([*lines, "```text", tree, "```", ""])


def model_page() -> str:
    """Describe the bundled model by its card."""
    card = read_card(bundled_model())
    lines = [
        f"# The model {BUNDLED}",
        "",
        _NOTE,
        "Everything here is in `groundglass-ct.json`, the card beside the weights.",
        "",
    ]
    rows = [
        ("intended use", card.intended_use),
        ("limits", "<br>".join(card.limits)),
        ("trained on", "<br>".join(card.training_data)),
        ("never trained on", ", ".join(card.never_trained_on)),
        ("window", f"{card.window_hu[0]:g} to {card.window_hu[1]:g} HU"),
        ("input", f"{card.size[0]} x {card.size[1]} pixels of the {card.field_of_view}"),
        ("neighbouring slices", f"{card.neighbours_mm:g} mm away" if card.neighbours_mm else "none"),
        ("classes", ", ".join(card.classes)),
        ("threshold", f"{card.threshold:g}"),
        ("repeatability", "not measured" if card.repeatability is None else f"{100 * card.repeatability:.1f} %"),
        ("SHA-256", f"`{card.sha256}`"),
    ]
    lines += _table(("", ""), rows)
    return "\n".join([*lines, *_scores(card)])


def _scores(card: ModelCard) -> list[str]:
    test = card.scores.get("test") or {}
    names = ("dice", "sensitivity", "specificity", "precision")
    rows = [
        (case, counted.replace("_", " "), *(f"{100 * scores[name]:.1f}" for name in names))
        for case, by_count in test.items()
        if isinstance(by_count, Mapping)
        for counted, scores in by_count.items()
        if isinstance(scores, Mapping) and set(names) <= set(scores)
    ]
    if not rows:
        return []
    command = card.scores.get("command") or test.get("command")
    return [
        *(
            "## Scores",
            "",
            "Percent, pooled over pixels. [What they mean](../evaluation.md), [more of them](../results.md).",
            "",
        ),
        *_table(("case", "counted on", *names), rows),
        *([f"Command: `{command}`", ""] if command else []),
    ]


def _summary(model: type[Any]) -> str:
    return (inspect.getdoc(model) or "").split("\n\n")[0].replace("\n", " ")


def _attributes(described: type[Any]) -> dict[str, str]:
    """Return {attribute: its text} of the section `Attributes` of a Google-style docstring, and of its bases'."""
    found: dict[str, str] = {}
    for each in reversed(described.__mro__):
        doc = inspect.cleandoc(each.__dict__.get("__doc__") or "")
        section = doc.partition("Attributes:\n")[2]
        found |= {name: re.sub(r"\s+", " ", text).strip() for name, text in _FIELD.findall(section)}
    return found


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> list[str]:
    body = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head), *body, ""]


PAGES = {
    "reference/commands.md": command_page,
    "reference/findings.md": findings_page,
    "reference/findings.schema.json": findings_schema,
    "reference/configuration.md": configuration_page,
    "reference/columns.md": column_page,
    "reference/exit-codes.md": exit_code_page,
    "reference/model.md": model_page,
}
