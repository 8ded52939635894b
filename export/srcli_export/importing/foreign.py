"""Any other network that spandrel recognises, exported by PyTorch's own exporter.

Only networks that can be cut into tiles without a trace are taken: see `reach`. Those that need sizes in
multiples of a number, or square pictures, are refused for the same reason; those that need a smallest size
get it inside the graph, by repeating the picture's last row and column.
"""

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
from srcli_export.graph import OPSET
from srcli_export.importing.reach import check_position, measure_reach
from srcli_export.storage import save

_PROBE = (1, 3, 33, 29)
_EXAMPLE = (2, 3, 24, 20)
_SAME = 1e-4
_KNOWN = "srcli knows EDSR and MDSR by itself, and what spandrel recognises."


class _Foreign(nn.Module):
    """The network under the smallest size it needs; called as srcli's own are."""

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
    """What is exported: batch in, batch out."""

    def __init__(self, network: _Foreign) -> None:
        super().__init__()
        self.network = network

    def forward(self, lr: Tensor) -> Tensor:
        result: Tensor = self.network(lr, self.network.factor)
        return result


@dataclass(frozen=True, slots=True)
class ForeignSource:
    """A network of another architecture; see `Source`."""

    origin: str
    notes: tuple[str, ...]
    network: _Foreign
    specs: Mapping[int, ModelSpec]

    def write(self, folder: Path, specs: Mapping[int, ModelSpec]) -> dict[int, Path]:
        """One file.

        Raises:
            ModelFileError: PyTorch cannot export the network for pictures of any size.
        """
        ((scale, spec),) = specs.items()
        path = folder / f"{spec.name}-x{scale}.onnx"
        save(path, _exported(self.network, spec).SerializeToString())
        return {scale: path}


def from_spandrel(path: Path, raw: Mapping[str, Any]) -> ForeignSource:
    """The network that spandrel makes of a state dict.

    Args:
        path: where it came from, for messages.
        raw: what `read_weights` read.

    Raises:
        MissingExtraError: spandrel is not installed.
        ModelFileError: spandrel does not recognise it, or srcli cannot run such a network.
    """
    descriptor = _recognised(path, raw)
    name, scale = str(descriptor.architecture.name), int(descriptor.scale)
    problem = _unfit(descriptor)
    if problem:
        raise ModelFileError(f"{path}: {name} {problem}.", "srcli runs RGB networks that enlarge.")
    network = _Foreign(_frozen(descriptor.model), scale, int(descriptor.size_requirements.minimum)).eval()
    try:
        _check_call(descriptor, network)
        radius = measure_reach(network, scale)
        check_position(network, scale, radius)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {name} cannot be used. {error.message}", error.hint) from error
    except Exception as error:  # foreign code may raise anything
        raise ModelFileError(
            f"{path}: {name} fails on a small picture ({_reason(error)}).", _KNOWN
        ) from error
    parameters = sum(values.numel() for values in network.parameters())
    spec = ModelSpec(name, "other", scale, parameters=parameters, exact_halo=radius, halo=radius)
    said = f"spandrel recognises {name}; each output pixel sees {radius} pixels around it"
    return ForeignSource(f"{name}, through spandrel", (said,), network, {scale: spec})


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


def _unfit(descriptor: Any) -> str:
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
    """Training-time branches merged for good: some networks do so in each run, which cannot be traced."""
    for parent in list(model.modules()):
        for key, child in list(parent.named_children()):
            merge, merged = getattr(child, "update_params", None), getattr(child, "eval_conv", None)
            if callable(merge) and isinstance(merged, nn.Module):
                merge()
                setattr(parent, key, merged)
    return model.requires_grad_(False)


def _check_call(descriptor: Any, network: _Foreign) -> None:
    """Spandrel may wrap a model in code of its own: what is exported must give what spandrel gives."""
    probe = torch.rand(_PROBE, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours, theirs = network(probe, network.factor).clamp(0, 1), descriptor(probe.clone())
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=0, atol=_SAME):
        raise ModelFileError("It needs more around it than the network itself.", _KNOWN)


def _exported(network: _Foreign, spec: ModelSpec) -> onnx.ModelProto:
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
    """Named dimensions and the spec; the exporter's stack traces, with paths of this machine, go."""
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
