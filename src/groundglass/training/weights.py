"""Weights that are there already: of a checkpoint or an exported model, and as another training begins with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import torch
from torch import Tensor

from groundglass.errors import TrainingError
from groundglass.network.baselines import BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.module import LesionModule, TrainingConfig

State: TypeAlias = dict[str, Tensor]


def load_network(checkpoint: Path, network: NetworkConfig | BaselineConfig) -> LesionModule:
    """The network of a checkpoint, in evaluation mode; only tensors are unpickled.

    Raises:
        TrainingError: The checkpoint is missing, or of another network.
    """
    if not checkpoint.is_file():
        raise TrainingError(f"{checkpoint} is not there: train first")
    module = fresh(network)
    try:
        module.load_state_dict(torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"])
    except RuntimeError as error:
        raise TrainingError(
            f"{checkpoint} does not fit the configuration beside it: {str(error).splitlines()[0]}"
        ) from error
    return module.eval()


def exported_weights(model: Path, network: NetworkConfig | BaselineConfig) -> State:
    """The weights of an ONNX file that `export` wrote: it keeps the names of the paper's network.

    Raises:
        TrainingError: A weight is not in it, as of some peers, or where a quantiser has rewritten the file.
    """
    import onnx
    from onnx.numpy_helper import to_array

    stored = {weight.name: weight for weight in onnx.load(model).graph.initializer}
    wanted = fresh(network).state_dict()
    for name in wanted:
        if name.removeprefix("network.") not in stored:
            raise TrainingError(f"{model} does not hold {name} under its name: take the run that it was exported from")
    return {name: torch.from_numpy(to_array(stored[name.removeprefix("network.")]).copy()) for name in wanted}


def widened(weights: State, of: NetworkConfig | BaselineConfig, network: NetworkConfig | BaselineConfig) -> State:
    """A trained network's weights for another one: the same network, or it between neighbours.

    Where the other one sees neighbours that this one did not, their weights begin at 0: it begins as what this one is.

    Raises:
        TrainingError: The networks differ in more than that.
    """
    if replace(of, slices=network.slices) != network or of.slices > network.slices:
        raise TrainingError(
            f"the weights to begin with are of another network ({of}): begin with one of the same switches ({network})"
        )
    if of.slices == network.slices:
        return weights
    wanted, wider = fresh(network).state_dict(), dict(weights)
    for name, weight in weights.items():
        if weight.shape != wanted[name].shape:
            nothing = torch.zeros_like(weight)
            wider[name] = torch.cat((nothing, weight, nothing), dim=1)
    return wider


def fresh(network: NetworkConfig | BaselineConfig) -> LesionModule:
    """A network with random weights, to load others into."""
    return LesionModule(network, LossConfig(), TrainingConfig())
