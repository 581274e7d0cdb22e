"""Draw the measurements of bench/engine.py.

python bench/plots.py bench/results/networks.json bench/results/growth.json -o docs
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
    parser.add_argument("networks", type=Path, help="Results of `bench/engine.py networks`.")
    parser.add_argument("growth", type=Path, help="Results of `bench/engine.py growth`.")
    parser.add_argument("-o", "--output", type=Path, default=Path("docs"), help="Folder for the figures.")
    arguments = parser.parse_args()
    mpl.rcParams.update({"font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "svg.hashsalt": "plots"})
    for name, draw in (("networks", _draw_networks), ("growth", _draw_growth)):
        figure = draw(json.loads(getattr(arguments, name).read_text()))
        figure.savefig(arguments.output / f"performance-{name}.svg", metadata={"Date": None})


def _draw_networks(networks: dict[str, dict[str, Any]]) -> Any:
    """Draw the seconds per slice, with a group of bars for each network."""
    results = {name: row["seconds"] for name, row in networks.items()}
    figure, axes = plt.subplots(figsize=(8, 3.4), layout="constrained")
    engines = list(next(iter(results.values())))
    width = 0.85 / len(engines)
    colours = [mpl.colormaps["viridis"](i / len(engines)) for i in range(len(engines))]
    for i, (engine, colour) in enumerate(zip(engines, colours, strict=True)):
        positions = [n + (i - (len(engines) - 1) / 2) * width for n in range(len(results))]
        axes.bar(positions, [row[engine] for row in results.values()], width, label=engine, color=colour)
    axes.axhline(PAPER_SECONDS, color="#b4480c", linewidth=1)
    transform = axes.get_yaxis_transform()
    axes.text(
        1.01, PAPER_SECONDS, "the paper, on its GPU", transform=transform, va="center", color="#b4480c", fontsize=8
    )
    axes.set(
        yscale="log", ylabel="seconds per slice of 512 x 512", xticks=range(len(results)), xticklabels=list(results)
    )
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure


def _draw_growth(results: dict[str, Any]) -> Any:
    """Draw time and memory by slices, and time by size of the input, threads and workers."""
    figure, (time, memory, size, cores) = plt.subplots(1, 4, figsize=(11, 2.8), layout="constrained")
    slices = [int(n) for n in results["slices"]]
    time.plot(slices, [row["seconds"] for row in results["slices"].values()], "o-", color="#1d7480")
    time.set(xlabel="slices", ylabel="seconds", title="time of a whole scan", ylim=0)
    memory.plot(slices, [row["mib"] for row in results["slices"].values()], "o-", color="#b4480c")
    memory.set(xlabel="slices", ylabel="peak MiB", title="memory of a whole scan", ylim=0)
    for precision, row in results["size"].items():
        size.plot([int(n) ** 2 / 1e3 for n in row], list(row.values()), "o-", label=precision)
    size.set(xlabel="thousand pixels", ylabel="seconds per slice", title="the network alone", ylim=0)
    size.legend(frameon=False)
    bars = {f"{n} thread{'s' if n > '1' else ''}": seconds for n, seconds in results["threads"].items()}
    bars |= {f"{n} worker{'s' if n > '1' else ''}": seconds for n, seconds in results["workers"].items()}
    cores.bar(list(bars), list(bars.values()), color=["#1d7480", "#1d7480", "#b4480c", "#b4480c"])
    cores.set(ylabel="seconds", title="75 slices; 8 such scans")
    cores.tick_params(axis="x", labelrotation=30)
    return figure


if __name__ == "__main__":
    main()
