"""Networks of other architectures, recognised by spandrel and exported by PyTorch's own exporter.

Tiles equal a whole-image run only if an output pixel depends on a bounded part of the input, and on that part
in the same way wherever it lies. Both are measured, since nothing in a file tells. Channel attention over the
whole picture breaks the first; windows, and networks that need sizes in multiples of a number, break the
second. Networks that need a smallest size get it inside the graph, which repeats the last row and column.
"""

import logging
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from srcli.errors import MissingExtraError, ModelFileError
from srcli.models.spec import METADATA_KEY, ModelSpec
from srcli_export.files import file_name, save
from srcli_export.graph import OPSET

_PROBE = (1, 3, 33, 29)
_EXAMPLE = (2, 3, 24, 20)
_SAME = 1e-4
_WIDTHS = (65, 257, 1025)
"""Widths of the pictures probed; the first one that is wide enough ends the search."""
_HEIGHT = 17
_OFFSETS = (1, 5)
_HINT = "srcli works in tiles, so a network must treat all parts of a picture alike. Choose another network."
_KNOWN = "srcli knows EDSR and MDSR by itself, and what spandrel recognises."

_log = logging.getLogger(__name__)


class ForeignNetwork(nn.Module):
    """A network that pads pictures to the smallest size it takes; called as `network(batch, scale)`."""

    def __init__(self, model: nn.Module, scale: int, smallest: int) -> None:
        super().__init__()
        self.model, self.factor, self.smallest = model, scale, smallest

    def forward(self, lr: Tensor, scale: int) -> Tensor:
        """(N, 3, H, W) float32 0-1 -> (N, 3, scale * H, scale * W)."""
        assert scale == self.factor, f"made for x{self.factor}, called for x{scale}"
        lr = lr.clone()  # some networks work in place on what they are given
        if self.smallest <= 1:
            result: Tensor = self.model(lr)
            return result
        height, width = lr.shape[2], lr.shape[3]
        right = torch.sym_max(0, self.smallest - width)  # type: ignore[no-untyped-call]
        below = torch.sym_max(0, self.smallest - height)  # type: ignore[no-untyped-call]
        padded = F.pad(lr, (0, right, 0, below), "replicate")
        result = self.model(padded)
        return result[:, :, : height * self.factor, : width * self.factor]


class _AtItsScale(nn.Module):
    """The network with one argument, as it is exported."""

    def __init__(self, network: ForeignNetwork) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        result: Tensor = self.network(lr, self.network.factor)
        return result


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """A network of another architecture; see `Source`."""

    origin: str
    network: ForeignNetwork
    specs: Mapping[int, ModelSpec]

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """One file.

        Raises:
            ModelFileError: PyTorch cannot export the network for pictures of any size.
        """
        ((scale, spec),) = specs.items()
        path = folder / file_name(spec.name, scale, "fp32")
        save(path, _exported(self.network, spec).SerializeToString())
        return {scale: path}


def from_spandrel(path: Path, raw: Mapping[str, Any]) -> ForeignSource:
    """The network that spandrel makes of a state dict.

    Args:
        path: of the file, for messages.
        raw: as read by `read_weights`.

    Raises:
        MissingExtraError: spandrel is not installed.
        ModelFileError: spandrel does not recognise it, or srcli cannot run such a network.
    """
    descriptor = _recognised(path, raw)
    name, scale = str(descriptor.architecture.name), int(descriptor.scale)
    problem = _problem(descriptor)
    if problem:
        raise ModelFileError(f"{path}: {name} {problem}.", "srcli runs RGB networks that enlarge.")
    network = ForeignNetwork(
        _frozen(descriptor.model), scale, int(descriptor.size_requirements.minimum)
    ).eval()
    try:
        _check_call(descriptor, network)
        radius = measure_radius(network, scale)
        check_position(network, scale, radius)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {name} cannot be used. {error.message}", error.hint) from error
    except Exception as error:  # foreign code may raise anything
        raise ModelFileError(
            f"{path}: {name} fails on a small picture ({_reason(error)}).", _KNOWN
        ) from error
    parameters = sum(values.numel() for values in network.parameters())
    spec = ModelSpec(name, "other", scale, parameters=parameters, exact_halo=radius, halo=radius)
    _log.info("spandrel recognises %s; its receptive field has a radius of %d pixels.", name, radius)
    return ForeignSource(f"{name}, through spandrel", network, {scale: spec})


def _recognised(path: Path, raw: Mapping[str, Any]) -> Any:
    what = f"{path}: neither EDSR nor MDSR, and spandrel, which knows other networks,"
    try:
        import spandrel
    except ModuleNotFoundError as error:
        raise MissingExtraError(what, "spandrel") from error
    except Exception as error:  # e.g. a torchvision that was built for another torch
        hint = "Install torch and torchvision from the same place, in versions that belong together."
        raise ModelFileError(f"{path}: spandrel cannot be loaded ({_reason(error)}).", hint) from error
    try:
        return spandrel.ModelLoader().load_from_state_dict(dict(raw)).float().eval()
    except spandrel.UnsupportedModelError as error:
        raise ModelFileError(f"{path}: a network that is not recognised.", _KNOWN) from error
    except Exception as error:  # a state dict that only looks like one of those spandrel knows
        raise ModelFileError(f"{path}: spandrel cannot build it ({_reason(error)}).", _KNOWN) from error


def _problem(descriptor: Any) -> str:
    """Why srcli cannot run this network, or nothing."""
    sizes = descriptor.size_requirements
    if getattr(descriptor, "purpose", "") == "Inpainting":
        return "fills holes in pictures"
    if (descriptor.input_channels, descriptor.output_channels) != (3, 3):
        return f"turns {descriptor.input_channels} channels into {descriptor.output_channels}"
    if not 2 <= descriptor.scale <= 16:
        return f"makes pictures x{descriptor.scale}"
    if sizes.multiple_of > 1 or sizes.square:
        return "takes only sizes that are multiples of a number, which tiles would make visible"
    return ""


def _frozen(model: nn.Module) -> nn.Module:
    """The model with training-time branches fused: what some do in each run cannot be traced."""
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            fuse, fused = getattr(child, "update_params", None), getattr(child, "eval_conv", None)
            if callable(fuse) and isinstance(fused, nn.Module):
                fuse()
                setattr(parent, key, fused)
    return model.requires_grad_(False)


def _check_call(descriptor: Any, network: ForeignNetwork) -> None:
    """Check that the network alone gives what spandrel gives, which may run code of its own around it."""
    probe = torch.rand(_PROBE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network(probe, network.factor).clamp(0, 1), descriptor(probe.clone())
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=0, atol=_SAME):
        raise ModelFileError("It needs more around it than the network itself.", _KNOWN)


def _exported(network: ForeignNetwork, spec: ModelSpec) -> onnx.ModelProto:
    free = torch.export.Dim.DYNAMIC
    shapes = {"lr": {0: free, 2: free, 3: free}}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Traced first: given the module, the exporter would try ways that can take the process down.
            traced = torch.export.export(
                _AtItsScale(network).eval(), (torch.rand(_EXAMPLE),), dynamic_shapes=shapes, strict=False
            )
            program = torch.onnx.export(
                traced,
                dynamo=True,
                opset_version=OPSET,
                input_names=["lr"],
                output_names=["sr"],
                verbose=False,
            )
    except Exception as error:  # the exporter's errors share no base class but Exception
        hint = "Its code depends on the size of the picture in a way that ONNX cannot say."
        raise ModelFileError(f"{spec.name}: PyTorch cannot export it ({_reason(error)}).", hint) from error
    assert program is not None
    return _tidy(program.model_proto, spec)


def _tidy(model: onnx.ModelProto, spec: ModelSpec) -> onnx.ModelProto:
    """The model with named dimensions and the spec, without stack traces, which hold local paths."""
    graph = model.graph
    for item in (*graph.node, *graph.input, *graph.output, *graph.initializer, graph):
        del item.metadata_props[:]
        item.doc_string = ""
    del graph.value_info[:]
    for port, names in (
        (graph.input[0], "NHW"),
        (graph.output[0], ("N", f"{spec.scale}H", f"{spec.scale}W")),
    ):
        for axis, name in zip((0, 2, 3), names, strict=True):
            port.type.tensor_type.shape.dim[axis].dim_param = name
    model.producer_name = "srcli"
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    return model


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def measure_radius(network: nn.Module, scale: int) -> int:
    """Exact radius of the receptive field in LR pixels: a NaN pixel makes all outputs that depend on it NaN.

    Args:
        network: called as `network(batch, scale)`, in evaluation mode.
        scale: output / input.

    Raises:
        ModelFileError: it is larger than 512 pixels, e.g. the whole picture.
    """
    for width in _WIDTHS:
        radius = max(_radius(network, scale, width, axis) for axis in (2, 3))
        if radius < width // 2:
            return radius
    raise ModelFileError(
        f"Each pixel of its output depends on more than {_WIDTHS[-1] // 2} around it.", _HINT
    )


def check_position(network: nn.Module, scale: int, radius: int) -> None:
    """Check that a picture and the same picture without its first few columns or rows give the same.

    Args:
        network: called as `network(batch, scale)`, in evaluation mode.
        scale: output / input.
        radius: of its receptive field; pixels closer to the border may differ.

    Raises:
        ModelFileError: pixels further inside differ by more than 1e-4.
    """
    picture = torch.rand(1, 3, _HEIGHT, 2 * radius + 48, generator=torch.Generator().manual_seed(0))
    for axis in (2, 3):
        turned = picture.transpose(2, 3) if axis == 2 else picture
        whole = _run(network, turned, scale)
        for offset in _OFFSETS:
            part = _run(network, turned.narrow(axis, offset, turned.shape[axis] - offset), scale)
            skip = (radius + offset) * scale
            count = part.shape[axis] - skip - radius * scale
            a, b = whole.narrow(axis, skip + offset * scale, count), part.narrow(axis, skip, count)
            if not torch.allclose(a, b, rtol=0, atol=_SAME):
                raise ModelFileError("Its output depends on where in the picture something lies.", _HINT)


def _radius(network: nn.Module, scale: int, width: int, axis: int) -> int:
    """Largest distance along an axis, in LR pixels, of an output pixel that depends on the middle pixel."""
    shape = [1, 3, _HEIGHT, _HEIGHT]
    shape[axis], middle = width, width // 2
    picture = torch.full(shape, 0.5)
    picture.narrow(axis, middle, 1).fill_(float("nan"))
    reached = _run(network, picture, scale).isnan().any(dim=1).any(dim=4 - axis)[0].nonzero()
    if len(reached) == 0:
        raise ModelFileError("Its output does not depend on its input.", _HINT)
    first, last = int(reached.min()) // scale, int(reached.max()) // scale
    return max(middle - first, last - middle)


def _run(network: nn.Module, batch: Tensor, scale: int) -> Tensor:
    with torch.inference_mode():
        result: Tensor = network(batch, scale)
    wanted = batch.shape[2] * scale, batch.shape[3] * scale
    if result.ndim != 4 or result.shape[1] != 3 or result.shape[2:] != wanted:
        raise ModelFileError(f"It turns {tuple(batch.shape)} into {tuple(result.shape)}.", _HINT)
    return result
