"""Export of a trained lung network: an ONNX file with 16-bit weights and its card, checked against torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch.nn.functional import interpolate

from groundglass.data.protocols import PUBLIC_TEST
from groundglass.files import sha256_of, staged_folder
from groundglass.inference.lungs.finding import LIMITS_HU
from groundglass.inference.lungs.network import INSIDE, SIDE, framed, scale_by_extremes
from groundglass.inference.model_card import BUNDLED_LUNGS, ModelCard, TrainedOn, write_card
from groundglass.network.unet import NetworkConfig
from groundglass.scan.kinds import FieldOfView
from groundglass.training.export import check_against_torch, write_onnx
from groundglass.training.finished_run import TERMS
from groundglass.training.lungs.slices import DRAWN, NO_CHEST, PHANTOM, LungSlices
from groundglass.training.weights import IN_16_BITS, load_network

CHECKED_SLICES = 48
SMALL = 64  # numbers; smaller weights stay as they are
SLACK = 4.0  # on the tolerances: a lung's outline moves by less than a pixel
OTHER_DATA = {
    NO_CHEST: "Slices without lung: abdomen, pelvis and shoulders (TCGA-LUAD, no terms stated in the copy used), a "
    "head (BSD-2 licensed test data)",
    DRAWN: "Images of no chest, drawn or projected from the scans by the program",
    PHANTOM: "Synthetic chests of the program",
}
INTENDED_USE = (
    "Finding the lungs, dense lesions included, in axial chest CT of any window, for research on lesions of COVID-19. "
    "Not a medical device; not for diagnosis or treatment of a patient."
)
LIMITS = (
    "Trained on eleven scans of nine patients and on single pictures of some sixty others, adults with COVID-19 or "
    "suspected of it, of few scanners.",
    "Large effusions, whole collapsed lungs and lungs after surgery were not seen.",
    "Which lung is which follows from its shape and place; of a single lung it is a guess.",
)


def export_lungs(
    checkpoint: Path, network: NetworkConfig, slices: LungSlices, folder: Path, earlier: TrainedOn | None
) -> Path:
    """Write the ONNX file and the card of a trained lung network: both or none.

    Args:
        checkpoint: Its weights, which are rounded to 16 bits; it computes in 32.
        network: How it is built.
        slices: What it was trained on.
        folder: Folder for both files.
        earlier: What the network was trained on that the training started from; None: that is not known.

    Returns:
        The ONNX file.

    Raises:
        ModelError: An engine's result differs from torch by more than its tolerance.
        OutputError: The files cannot be written.
    """
    module = load_network(checkpoint, network).half().float()
    groups = sorted(set(slices.group.tolist()))
    cases = tuple(group for group in groups if group not in OTHER_DATA)
    sources = dict.fromkeys(case.split("/")[0] for case in cases)
    trained_on = None if earlier is None else earlier | TrainedOn(members=cases, patients=cases)
    with staged_folder(folder) as staging:
        path = staging / f"{BUNDLED_LUNGS}.onnx"
        write_onnx(module, (1, SIDE, SIDE), path)
        onnx.save(_with_small_weights(onnx.load(path)), path)
        card = ModelCard(
            name=BUNDLED_LUNGS,
            sha256=sha256_of(path),
            network=asdict(network),
            window_hu=LIMITS_HU,
            field_of_view=FieldOfView.SLICE,
            size=(SIDE, SIDE),
            classes=("lung on the left of the image", "lung on the right of the image"),
            threshold=0.5,
            training_data=(
                *(TERMS.get(source, source) for source in sources),
                *(text for group, text in OTHER_DATA.items() if group in groups),
            ),
            trained_on=trained_on,
            never_trained_on=tuple(case for case in PUBLIC_TEST if trained_on and not trained_on.holds(case)),
            export_check=check_against_torch(module, path, _check_images(slices), SLACK),
            intended_use=INTENDED_USE,
            limits=LIMITS,
        )
        write_card(path, card)
    return folder / path.name


def _check_images(slices: LungSlices) -> NDArray[np.float32]:
    """Return (n, 1, SIDE, SIDE) inputs: slices spread over all."""
    hu = torch.from_numpy(slices.hu[:: max(1, len(slices) // CHECKED_SLICES)]).float()[:, None]
    small = interpolate(hu, (INSIDE, INSIDE), mode="area")[:, 0].numpy()
    return framed(scale_by_extremes(small.clip(*LIMITS_HU)))


def _with_small_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Store the weights of a model in 16 bits, each with a cast to 32, which engines compute once."""
    graph, casts = model.graph, []
    for weight in graph.initializer:
        values = numpy_helper.to_array(weight)
        if values.dtype != np.float32 or values.size < SMALL:
            continue
        name = weight.name
        weight.CopyFrom(numpy_helper.from_array(values.astype(np.float16), name + IN_16_BITS))
        casts.append(helper.make_node("Cast", [name + IN_16_BITS], [name], to=TensorProto.FLOAT))
    for node in reversed(casts):
        graph.node.insert(0, node)
    return model
