"""Write the tables of the documentation that show results, from the files in `bench/results/`.

    python bench/result_tables.py            # rewrites README.md and docs/*.md between the marks of each table

A table stands between `<!-- table: NAME -->` and `<!-- end of table -->`; `TABLES` says what each is made of.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).parent / "results"
PAGES = (ROOT / "README.md", *(ROOT / "docs" / f"{name}.md" for name in ("results", "performance", "lungs")))
MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n\n).*?(\n<!-- end of table -->)", re.DOTALL)
VOLUMES = ("volumes/4", "volumes/5", "volumes/8")
SCORES = ("dice", "sensitivity", "specificity", "precision")
NETWORKS = {"paper": "paper, 32..512", "DynUNet": "DynUNet (nnU-Net's for 512 x 512)"}
Rows = Iterable[Sequence[str]]


def main() -> None:
    for page in PAGES:
        page.write_text(with_tables(page.read_text(encoding="utf-8")), encoding="utf-8")


def with_tables(page: str) -> str:
    """Return a page with each of its marked tables made anew."""
    return MARKED.sub(lambda found: found[1] + "\n".join(_lines(TABLES[found[2]]())) + "\n" + found[3], page)


def _lines(rows: Rows) -> Iterator[str]:
    for number, row in enumerate(rows):
        yield "|" + "".join(f" {cell} |" if cell else " |" for cell in row)
        if number == 0:
            yield "|" + "---|" * len(row)


def _json(name: str) -> Any:
    return json.loads((RESULTS / name).read_text(encoding="utf-8"))


def _csv(name: str) -> list[list[str]]:
    with (RESULTS / name).open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def _records(name: str) -> list[dict[str, str]]:
    head, *rows = _csv(name)
    return [dict(zip(head, row, strict=True)) for row in rows]


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _with_interval(score: dict[str, Any]) -> str:
    low, high = score["interval_95"]
    return f"{_percent(score['value'])} ({_percent(low)}-{_percent(high)})"


def _pooled(scores: dict[str, Any]) -> list[str]:
    return [_with_interval(scores["dice"]), *(_percent(scores[name]["value"]) for name in SCORES[1:])]


def headline() -> Rows:
    """The bundled model in one row."""
    scores = _json("scores.json")
    dice, *others = _pooled(scores["pooled"]["whole"])
    cases = " / ".join(_percent(scores["cases"][case]["pooled"]["whole"]["dice"]) for case in VOLUMES)
    yield "Dice (95 % over patients)", *SCORES[1:], "volume 4 / 5 / 8: Dice"
    value, interval = dice.split(" ", 1)
    yield f"**{value}** {interval}", *others, cases


def scores() -> Rows:
    """The bundled model by what is counted."""
    scores, cases = _json("scores.json"), {row["case"]: row for row in _records("cases.csv")}
    yield "counted on", "volumes", "Dice (95 % over patients)", *SCORES[1:], "HD95 mm", "surface Dice, 2 mm"
    for case, counted in zip(VOLUMES, ("whole volumes, lesion-free slices included", "", ""), strict=True):
        found = cases[case]
        whole = [_percent(float(found[name])) for name in (*SCORES, "surface_dice")]
        yield counted, case.removeprefix("volumes/"), *whole[:-1], f"{float(found['hd95_mm']):.1f}", whole[-1]
    pooled, means, surface = scores["pooled"], scores["mean_over"], scores["surface"]
    yield "", "4, 5, 8, pooled", *_pooled(pooled["whole"]), "", ""
    yield "lesion slices", "4, 5, 8, pooled", *_pooled(pooled["lesion_slices"]), "", ""
    yield "mean of lesion slices", "", *_pooled(means["lesion_slices"]), "", ""
    distances = f"{surface['hd95_mm']['value']:.1f}", _percent(surface["surface_dice"]["value"])
    yield "mean of patients, whole volumes", "", *_pooled(means["patients"]), *distances
    for name, found in scores["classes"].items():
        yield name, "4, 5, 8, pooled", *_pooled(found["pooled"]), "", ""


def lesions() -> Rows:
    """What was found, by the size of the lesion."""
    yield "lesions of", "found", "marked regions of that size that are correct"
    for row in _json("scores.json")["lesions"]["ml"]:
        found, right = f"{row['found']} of {row['lesions']}", f"{row['right']} of {row['marked']}"
        yield row["size_class"].replace("<", "< ").replace(">=", ">= "), found, right


def targets() -> Rows:
    """What was wanted, and what was reached."""
    scores, readers = _json("scores.json"), _csv("second-reader.csv")[-1]
    pooled, small = scores["pooled"]["whole"], scores["lesions"]["ml"][1]
    worst = max(-float(row["dice_difference"]) for row in _records("robustness.csv") if row["case"] != "pooled")
    (_, no_covid) = _csv("no-covid.csv")[1]
    yield "target", "wanted", "reached"
    yield (
        "4, 5, 8, pooled, first reader / second reader",
        "74 / 76",
        f"{_percent(pooled['dice']['value'])} / {readers[2]}",
    )
    yield "volume 5", "70", _percent(scores["cases"]["volumes/5"]["pooled"]["whole"]["dice"])
    at = f"{_percent(pooled['precision']['value'])}, at {_percent(pooled['sensitivity']['value'])}"
    yield "precision, at a sensitivity of 80 or more", "70", at
    yield "lesions of 0.1 to 1 ml found", "36 of 58", f"{small['found']} of {small['lesions']}"
    yield "chest without COVID", "1.0 ml", f"{no_covid} ml"
    yield "robustness: no volume loses more than", "3.0", f"{100 * worst:.2f}"


def robustness() -> Rows:
    """The scores of changed volumes."""
    by_variant: dict[str, dict[str, dict[str, str]]] = {}
    for row in _records("robustness.csv"):
        by_variant.setdefault(row["variant"], {})[row["case"]] = row
    yield "change", "Dice", "difference", "sensitivity", "specificity", "volume 4 / 5 / 8"
    for variant, found in by_variant.items():
        pooled = found["pooled"]
        difference = f"{100 * float(pooled['dice_difference']) + 0.0:+.1f}".replace("-0.0", "+0.0")
        others = (_percent(float(pooled[name])) for name in ("sensitivity", "specificity"))
        cases = " / ".join(_percent(float(found[case]["dice"])) for case in VOLUMES)
        yield variant, _percent(float(pooled["dice"])), difference, *others, cases


def networks() -> Rows:
    """Seconds of each network on a slice, in each engine."""
    results = _json("networks.json")
    yield "network", "parameters", "GFLOP", *next(iter(results.values()))["seconds"]
    for name, row in results.items():
        fastest = min(row["seconds"].values())
        seconds = (f"**{s:.3f}**" if s == fastest else f"{s:.3f}" for s in row["seconds"].values())
        yield NETWORKS.get(name, name), f"{row['parameters'] / 1e6:.1f} M", f"{row['gflop']:.0f}", *seconds


def growth() -> Rows:
    """Time and memory by the number of slices."""
    slices = _json("growth.json")["slices"]
    yield "slices of 512 x 512", *slices
    yield "seconds", *(f"{row['seconds']:.1f}" for row in slices.values())
    yield "a slice", *(f"{row['seconds'] / int(n):.3f}" for n, row in slices.items())
    yield "peak memory, MiB", *(f"{row['mib']:.0f}" for row in slices.values())


def input_sizes() -> Rows:
    """Time of the network by the size of its input."""
    sizes = _json("growth.json")["size"]
    yield "input", *(f"{n} x {n}" for n in next(iter(sizes.values())))
    for precision, row in sizes.items():
        yield f"{precision}, seconds a slice, network alone", *(f"{seconds:.3f}" for seconds in row.values())


def batching() -> Rows:
    """Time of a slice by batch, shapes and streams."""
    results = _json("batching.json")
    kinds = {
        "open 1": "dynamic shape, one stream of two threads",
        "open 2": "dynamic, two streams of one thread",
        "fixed 1": "fixed, one stream",
        "fixed 2": "fixed, two streams",
    }
    yield "slices in a batch", *kinds.values()
    for batch in dict.fromkeys(key.split()[0] for key in results):
        yield batch, *(f"{1000 * results[f'{batch} {kind}']:.1f}" for kind in kinds)


def _as_printed(name: str) -> Callable[[], Rows]:
    return lambda: _csv(f"{name}.csv")


PRINTED = (
    *("second-reader", "study-slices", "study-patients", "leakage", "lung-field", "lung-cuts"),
    *("whole-scan", "precision-scores", "layers"),
)
TABLES: dict[str, Callable[[], Rows]] = {name: _as_printed(name) for name in PRINTED}
TABLES |= {"headline": headline, "scores": scores, "lesions": lesions, "targets": targets, "robustness": robustness}
TABLES |= {"networks": networks, "growth": growth, "input-sizes": input_sizes, "batching": batching}

if __name__ == "__main__":
    main()
