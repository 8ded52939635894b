"""Random EDSR-like networks as ONNX files in the deployment form, written without PyTorch."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from srcli.models.spec import METADATA_KEY, ModelSpec

MEAN = np.array([0.4488, 0.4371, 0.4040], np.float32).reshape(1, 3, 1, 1)


@dataclass
class _Graph:
    """Nodes and weights under construction."""

    rng: np.random.Generator
    half: bool
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: object) -> str:
        output = output or f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output

    def constant(self, value: NDArray[np.float32], half: bool = False) -> str:
        name = f"w_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(value.astype(np.float16) if half else value, name))
        return self.add("Cast", [name], to=TensorProto.FLOAT) if half else name

    def conv(self, x: str, cin: int, cout: int, kernel: int = 3, gain: float = 1.0) -> str:
        bound = gain / np.sqrt(cin * kernel * kernel)
        weight = self.rng.uniform(-bound, bound, (cout, cin, kernel, kernel)).astype(np.float32)
        bias = self.rng.uniform(-bound, bound, cout).astype(np.float32) * 0.1
        names = [x, self.constant(weight, self.half), self.constant(bias, self.half)]
        return self.add("Conv", names, kernel_shape=[kernel] * 2, pads=[kernel // 2] * 4)


def _upsample(g: _Graph, x: str, features: int, scale: int) -> str:
    for factor in {2: (2,), 3: (3,), 4: (2, 2)}[scale]:
        x = g.conv(x, features, features * factor * factor)
        x = g.add("DepthToSpace", [x], blocksize=factor, mode="CRD")
    return x


def exact_halo(blocks: int, scale: int) -> int:
    """LR pixels an output pixel sees to each side: head, blocks, body end, upsampler, tail (<= 1 each)."""
    return 2 * blocks + 2 + {2: 2, 3: 2, 4: 2}[scale]


def build(spec: ModelSpec, seed: int = 0, half: bool = False) -> onnx.ModelProto:
    """EDSR of spec.blocks and spec.features at spec.scale with the spec in the metadata."""
    g = _Graph(np.random.default_rng(seed), half)
    mean, scale255 = g.constant(MEAN * 255), g.constant(np.float32(255).reshape(1))
    x = g.add("Sub", [g.add("Mul", ["lr", scale255]), mean])
    head = x = g.conv(x, 3, spec.features)
    for _ in range(spec.blocks):
        inner = g.add("Relu", [g.conv(x, spec.features, spec.features)])
        x = g.add("Add", [x, g.conv(inner, spec.features, spec.features)])
    x = g.add("Add", [head, g.conv(x, spec.features, spec.features)])
    x = g.conv(_upsample(g, x, spec.features, spec.scale), spec.features, 3)
    g.add("Mul", [g.add("Add", [x, mean]), g.constant(np.float32(1 / 255).reshape(1))], "sr")
    return _model(g, spec)


def _model(g: _Graph, spec: ModelSpec) -> onnx.ModelProto:
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        g.nodes,
        "tiny",
        [info("lr", TensorProto.FLOAT, ["n", spec.channels, "h", "w"])],
        [info("sr", TensorProto.FLOAT, ["n", spec.channels, "sh", "sw"])],
        g.weights,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def tiny_spec(scale: int, name: str = "tiny", blocks: int = 2, features: int = 8) -> ModelSpec:
    """Two blocks of eight features; the default halo is the exact one less two, as shipped specs do."""
    halo = exact_halo(blocks, scale)
    return ModelSpec(
        name=name, family="edsr", scale=scale, blocks=blocks, features=features, exact_halo=halo, halo=halo
    )


def write(folder: Path, spec: ModelSpec, seed: int = 0, half: bool = False) -> Path:
    """Build and save as <name>-x<scale>.onnx."""
    path = folder / f"{spec.name}-x{spec.scale}.onnx"
    onnx.save(build(spec, seed, half), path)
    return path
