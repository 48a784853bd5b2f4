"""A trained MobileNetV2 as plain float32 ONNX, node for node.

torch's own exporter either folds the batch norms into the convolutions, so that the parameters of the trained network
can no longer be counted, or precedes each clip by eight nodes of casts and shapes, and it writes source paths into the
file. So the graph is written here: Conv, BatchNormalization, Clip, Add, GlobalAveragePool, Flatten and Gemm,
with the state dict's names for tensors. This is the only place outside graph/ and formats/ that touches onnx.
"""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
from torch import nn

import lowbit
from lowbit.graph.class_names import CLASSES_KEY
from lowbit.graph.preprocessing import METADATA_KEY, Preprocessing
from lowbit.training.mobilenet import InvertedResidual, MobileNetV2

OPSET = 17
IR_VERSION = 8


def to_onnx(
    model: MobileNetV2, *, preprocessing: Preprocessing, class_names: tuple[str, ...], metadata: Mapping[str, str]
) -> bytes:
    """Serialize `model` in inference mode: input `x` [batch, 3, height, width], output `logits` [batch, classes].

    Metadata holds the preprocessing, the class names as a JSON list under `lowbit.classes`, and `metadata`.
    """
    nodes: list[onnx.NodeProto] = []
    state = {name: tensor.detach().cpu().numpy() for name, tensor in model.state_dict().items()}

    def append(op: str, inputs: list[str], output: str, **attributes: Any) -> str:  # noqa: ANN401
        nodes.append(onnx.helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def leaves(name: str, module: nn.Module, x: str) -> str:
        if isinstance(module, nn.Conv2d):
            (rows, columns), (top, left) = module.kernel_size, (int(module.padding[0]), int(module.padding[1]))
            return append(
                "Conv", [x, f"{name}.weight"], f"{name}.output", kernel_shape=[rows, columns],
                strides=list(module.stride), pads=[top, left, top, left], dilations=list(module.dilation),
                group=module.groups,
            )  # fmt: skip
        if isinstance(module, nn.BatchNorm2d):
            tensors = [f"{name}.{part}" for part in ("weight", "bias", "running_mean", "running_var")]
            return append("BatchNormalization", [x, *tensors], f"{name}.output", epsilon=module.eps)
        if isinstance(module, nn.ReLU6):
            return append("Clip", [x, "clip.low", "clip.high"], f"{name}.output")
        if isinstance(module, InvertedResidual):
            inside = leaves(f"{name}.conv", module.conv, x)
            return append("Add", [x, inside], f"{name}.output") if module.residual else inside
        for child, part in module.named_children():
            x = leaves(f"{name}.{child}", part, x)
        return x

    x = leaves("features", model.features, "x")
    x = append("GlobalAveragePool", [x], "pool.output")
    x = append("Flatten", [x], "flatten.output")
    append("Gemm", [x, "classifier.1.weight", "classifier.1.bias"], "logits", transB=1)
    used = {name for node in nodes for name in node.input}
    state |= {"clip.low": np.array(0, np.float32), "clip.high": np.array(6, np.float32)}
    height, width = preprocessing.height, preprocessing.width
    graph = onnx.helper.make_graph(
        nodes,
        "mobilenet_v2",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["batch", 3, height, width])],
        [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", len(class_names)])],
        [onnx.numpy_helper.from_array(value, name) for name, value in state.items() if name in used],
    )
    proto = onnx.helper.make_model(
        graph,
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="lowbit",
        producer_version=lowbit.__version__,
    )
    entries = {METADATA_KEY: preprocessing.to_json(), CLASSES_KEY: json.dumps(list(class_names)), **metadata}
    onnx.helper.set_model_props(proto, dict(entries))
    onnx.checker.check_model(proto, full_check=True)
    return proto.SerializeToString(deterministic=True)  # type: ignore[no-any-return]
