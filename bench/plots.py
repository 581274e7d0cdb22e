"""Draw what bench/engine.py measured.

python bench/engine.py networks --json networks.json && python bench/engine.py growth --json growth.json
python bench/plots.py networks.json growth.json -o docs
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt

PAPER_SECONDS = 0.29


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", type=Path)
    parser.add_argument("growth", type=Path)
    parser.add_argument("-o", "--output", type=Path, default=Path("docs"))
    arguments = parser.parse_args()
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "plots"})
    for name, draw in (("networks", _networks), ("growth", _growth)):
        figure = draw(json.loads(getattr(arguments, name).read_text()))
        figure.savefig(arguments.output / f"performance-{name}.svg", metadata={"Date": None})


def _networks(found: dict[str, dict[str, float]]) -> Any:
    """Seconds a slice, a group of bars for each network."""
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    engines = list(next(iter(found.values())))
    width = 0.85 / len(engines)
    colours = [mpl.colormaps["viridis"](i / len(engines)) for i in range(len(engines))]
    for i, (engine, colour) in enumerate(zip(engines, colours, strict=True)):
        places = [n + (i - (len(engines) - 1) / 2) * width for n in range(len(found))]
        axes.bar(places, [row[engine] for row in found.values()], width, label=engine, color=colour)
    axes.axhline(PAPER_SECONDS, color="#b4480c", linewidth=1)
    place = axes.get_yaxis_transform()
    axes.text(1.01, PAPER_SECONDS, "the paper, on its GPU", transform=place, va="center", color="#b4480c", fontsize=8)
    axes.set(yscale="log", ylabel="seconds a slice of 512 x 512", xticks=range(len(found)), xticklabels=list(found))
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _growth(found: dict[str, Any]) -> Any:
    """Time and memory by slices, time by input, threads and workers."""
    figure, (time, memory, size, cores) = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    slices = [int(n) for n in found["slices"]]
    time.plot(slices, [row["seconds"] for row in found["slices"].values()], "o-", color="#1d7480")
    time.set(xlabel="slices", ylabel="seconds", title="a whole scan", ylim=0)
    memory.plot(slices, [row["mib"] for row in found["slices"].values()], "o-", color="#b4480c")
    memory.set(xlabel="slices", ylabel="MiB at most", title="its memory", ylim=0)
    for precision, row in found["size"].items():
        size.plot([int(n) ** 2 / 1e3 for n in row], list(row.values()), "o-", label=precision)
    size.set(xlabel="thousand pixels", ylabel="seconds a slice", title="the network alone", ylim=0)
    size.legend(frameon=False)
    bars = {f"{n} thread{'s' if n > '1' else ''}": took for n, took in found["threads"].items()}
    bars |= {f"{n} worker{'s' if n > '1' else ''}": took for n, took in found["workers"].items()}
    cores.bar(list(bars), list(bars.values()), color=["#1d7480", "#1d7480", "#b4480c", "#b4480c"])
    cores.set(ylabel="seconds", title="75 slices; 8 such scans")
    cores.tick_params(axis="x", labelrotation=30)
    return figure


if __name__ == "__main__":
    main()
