"""Whole commands of other programs and of groundglass on the same scan, each in a process of its own, in turns.

    pip install lungmask monai
    python bench/peers.py SCAN.nii.gz [--rounds 1]

- `groundglass segment` with the bundled model: lungs, lesions, findings, report.
- lungmask (R231's architecture): the lungs alone, with its post-processing and without.
- MONAI's `SliceInferer`, a sliding window over the slices, with DynUNet as nnU-Net configures it for 512 x 512: lesions
  alone, read by MONAI's transforms and written by them.

**Weights of the others are random**, since theirs would have to be downloaded. This does not change the time of a
network, but lungmask's post-processing meets more regions than it does in lungs: its time without stands beside it.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LUNGMASK_WEIGHTS = """
import sys, torch
from lungmask.resunet import UNet
torch.manual_seed(0)
network = UNet(n_classes=3, padding=True, depth=5, up_mode="upsample", batch_norm=True, residual=False)
torch.save(network.state_dict(), sys.argv[1])
"""
MONAI_COMMAND = """
import sys, torch
from monai.inferers import SliceInferer
from monai.networks.nets import DynUNet
from monai.transforms import Compose, LoadImage, SaveImage, ScaleIntensityRange
filters = (32, 64, 128, 256, 512, 512, 512, 512)
deeper = len(filters) - 1
network = DynUNet(2, 1, 1, kernel_size=[3] * len(filters), strides=[1, *[2] * deeper], filters=filters,
                  upsample_kernel_size=[2] * deeper, norm_name=("INSTANCE", {"affine": True})).eval()
image = Compose([LoadImage(ensure_channel_first=True), ScaleIntensityRange(-1250, 250, 0, 1, clip=True)])(sys.argv[1])
with torch.inference_mode():
    logits = SliceInferer(roi_size=(512, 512), spatial_dim=2, sw_batch_size=1)(image[None], network)
SaveImage(output_dir=sys.argv[2], separate_folder=False, print_log=False)(logits[0] > 0)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scan", type=Path)
    parser.add_argument("--rounds", type=int, default=1, help="Number of repetitions whose median counts.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        weights, out = str(Path(folder) / "random.pth"), str(Path(folder) / "out")
        subprocess.run([sys.executable, "-c", LUNGMASK_WEIGHTS, weights], check=True)
        lungs = [
            "-m",
            "lungmask",
            str(arguments.scan),
            f"{out}.nii.gz",
            "--modelpath",
            weights,
            "--cpu",
            "--noprogress",
        ]
        commands = {
            "groundglass segment": ["-m", "groundglass", "segment", str(arguments.scan), "-o", out],
            "lungmask": lungs,
            "lungmask --nopostprocess": [*lungs, "--nopostprocess"],
            "MONAI SliceInferer, DynUNet": ["-c", MONAI_COMMAND, str(arguments.scan), folder],
        }
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
        for _ in range(arguments.rounds):
            for name, command in commands.items():
                seconds[name].append(_time(command))
    print("| command | seconds | of all cores | times groundglass |\n|---|---|---|---|")
    first = statistics.median(clock for clock, _ in seconds["groundglass segment"])
    for name, runs in seconds.items():
        clock, cpu = (statistics.median(column) for column in zip(*runs, strict=True))
        print(f"| {name} | {clock:.1f} | {cpu:.1f} | {clock / first:.1f} |")


def _time(command: list[str]) -> tuple[float, float]:
    """Run a Python command; return its seconds on the clock and of all cores together."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return time.perf_counter() - start, used


if __name__ == "__main__":
    main()
