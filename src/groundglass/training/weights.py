"""Trained weights: read from a checkpoint or an exported model, and adapted to initialise another training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from groundglass.errors import TrainingError
from groundglass.network.baselines import BaselineConfig
from groundglass.network.losses import LossConfig
from groundglass.network.unet import NetworkConfig
from groundglass.training.module import LesionModule, TrainingConfig

StateDict: TypeAlias = dict[str, Tensor]  # of a LesionModule
IN_16_BITS = ".16"  # ends the name of a weight that an ONNX file stores in 16 bits
_DAMAGED = (OSError, EOFError, RuntimeError, UnpicklingError, LookupError, AttributeError, TypeError, ValueError)


def load_network(checkpoint: Path, network: NetworkConfig | BaselineConfig) -> LesionModule:
    """Read the network of a checkpoint, in evaluation mode; only tensors are unpickled.

    Raises:
        TrainingError: The checkpoint is missing or damaged, or holds another network.
    """
    return network_of(read_checkpoint(checkpoint), network, checkpoint)


def network_of(stored: dict[str, Any], network: NetworkConfig | BaselineConfig, path: Path) -> LesionModule:
    """Return the network of a checkpoint that was read from `path`, in evaluation mode.

    Raises:
        TrainingError: The checkpoint holds another network.
    """
    module = untrained_module(network)
    try:
        module.load_state_dict(first_maps(stored["state_dict"], network.classes))
    except RuntimeError as error:
        raise TrainingError(f"{path} does not match the config.json beside it: {str(error).splitlines()[0]}") from error
    return module.eval()


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Read the checkpoint of an epoch; only tensors are unpickled.

    Raises:
        TrainingError: It is missing, damaged, or no checkpoint of a training.
    """
    if not path.is_file():
        raise TrainingError(f"{path} does not exist: train first, or put it back")
    try:
        content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        content["state_dict"]
    except _DAMAGED as error:
        raise TrainingError(f"{path} is damaged, cut short, or no checkpoint of a training: put it back") from error
    return content


def exported_weights(model: Path, network: NetworkConfig | BaselineConfig) -> StateDict:
    """Read the weights of an exported ONNX file, in which those of the paper's network keep their names.

    Those of the lung network are stored in 16 bits, and called so.

    Raises:
        TrainingError: A weight is missing, because the network is a baseline or the file was quantized.
    """
    import onnx
    from onnx.numpy_helper import to_array

    stored = {weight.name.removesuffix(IN_16_BITS): weight for weight in onnx.load(model).graph.initializer}
    weights: StateDict = {}
    for name in untrained_module(network).state_dict():
        if name.removeprefix("network.") not in stored:
            raise TrainingError(f"{model} holds no weight called {name}: use the run that it was exported from")
        weights[name] = torch.from_numpy(to_array(stored[name.removeprefix("network.")]).astype(np.float32))
    return weights


def first_maps(weights: StateDict, count: int) -> StateDict:
    """Return the weights of a network with no output maps but the first `count`."""
    return {name: weight[:count] if ".segment." in name else weight for name, weight in weights.items()}


def adapt_weights(
    weights: StateDict, source: NetworkConfig | BaselineConfig, target: NetworkConfig | BaselineConfig
) -> StateDict:
    """Return the weights of one network for another: the same network, its 2.5D version, or one with more output maps.

    The weights of the neighbouring slices are set to 0, so that the 2.5D network starts with the 2D network's output;
    those of further output maps are set to 0, too.

    Args:
        weights: Weights of `source`.
        source: The network that was trained.
        target: The network to initialise.

    Raises:
        TrainingError: The networks differ in more than their input slices and output maps, or `source` has more.
    """
    same = replace(source, slices=target.slices, classes=target.classes) == target
    if not same or source.slices > target.slices or source.classes > target.classes:
        raise TrainingError(
            f"the initial weights are of another network ({source}): choose a model with the same switches ({target})"
        )
    adapted = {name: torch.zeros_like(weight) for name, weight in untrained_module(target).state_dict().items()}
    for name, weight in weights.items():
        if ".segment." in name:  # (maps, ...)
            adapted[name][: len(weight)] = weight
        elif weight.shape != adapted[name].shape:  # (filters, 1, 3, 3), expected (filters, 3, 3, 3)
            adapted[name][:, 1:2] = weight
        else:
            adapted[name] = weight
    return adapted


def untrained_module(network: NetworkConfig | BaselineConfig) -> LesionModule:
    """Return a module with random weights, to load others into."""
    return LesionModule(network, LossConfig(), TrainingConfig())
