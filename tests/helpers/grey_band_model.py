"""The model file of `grey_band`: for tests of commands and servers, whose processes open a model themselves."""

import hashlib
from pathlib import Path

from onnx import TensorProto, helper, save

from groundglass.inference.model_card import write_card
from helpers.fake_engine import fake_segmenter


def write_grey_band_model(folder: Path) -> Path:
    """Write a model and its card that finds the lesions that `fake_segmenter` finds, in next to no time."""
    constants = {"centre": 0.525, "half_width": 0.195, "certainty": 5.0}  # of 0.33 to 0.72
    steps = [
        ("Sub", ["x", "centre"], "offset"),
        ("Abs", ["offset"], "distance"),
        ("Sub", ["half_width", "distance"], "inside"),
        ("Sign", ["inside"], "side"),
        ("Mul", ["side", "certainty"], "logits"),
    ]
    shape: list[str | int | None] = ["n", 1, "height", "width"]
    graph = helper.make_graph(
        [helper.make_node(operator, inputs, [output]) for operator, inputs, output in steps],
        "grey-band",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, shape)],
        [helper.make_tensor(name, TensorProto.FLOAT, [], [value]) for name, value in constants.items()],
    )
    path = folder / "grey-band.onnx"
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    write_card(path, fake_segmenter().card.model_copy(update={"sha256": sha256}))
    return path
