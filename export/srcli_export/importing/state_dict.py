"""State dicts: read without executing anything in the file, and matched to the layers of EDSR and MDSR.

EDSR-PyTorch calls its layers head.0, body.<i>.body.0 and .2 (the convolutions of a block), body.<blocks>
(the body's last), tail.0.<2k> (upsampler), tail.1. Its MDSR has pre_process.<branch>.<j>.body.0 and .2,
upsample.<branch>.<2k> and tail.0, with branches numbered in the order of its scales. super-image uses the
same names, but its MDSR calls branches by their scale and wraps each convolution once more (head.0.0).
"""

import json
import pickle
import re
import struct
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt, prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srcli.errors import ModelFileError, UsageError

_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
_MAX_HEADER = 100_000_000
_MAX_DEPTH = 3
_WRAPPERS = ("params_ema", "params", "state_dict", "model_state_dict", "model", "net", "weights")
_PREFIXES = ("module.", "model.")
_MEANS = ("sub_mean", "add_mean")
_NO_WEIGHTS = "Give the weights of a network: a state dict saved by PyTorch, or .safetensors."


def read_weights(path: Path) -> dict[str, Any]:
    """The dictionary in a file: a state dict, or something that holds one.

    Raises:
        UsageError: no such file.
        ModelFileError: it is damaged, needs code to load, or holds no dictionary.
    """
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"{path}: {kind}.", _NO_WEIGHTS)
    raw = _safetensors(path) if path.suffix == ".safetensors" else _torch(path)
    if not isinstance(raw, dict) or not raw or not all(isinstance(key, str) for key in raw):
        raise ModelFileError(f"{path}: holds no weights by name.", _NO_WEIGHTS)
    return raw


def tensors(raw: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in what was read, as float32: unwrapped, and without the prefixes of wrappers."""
    inner: Mapping[str, Any] = raw
    for _ in range(_MAX_DEPTH):
        inner = next((inner[key] for key in _WRAPPERS if isinstance(inner.get(key), dict)), inner)
    state = {key: value.detach() for key, value in inner.items() if isinstance(value, Tensor)}
    for prefix in _PREFIXES:
        if state and all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return {key: value.float() if value.is_floating_point() else value for key, value in state.items()}


def _torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about old formats; the errors say what matters
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        hint = (
            "Nothing in it was executed. Load it where you trust it, save model.state_dict() and import that."
        )
        raise ModelFileError(f"{path}: damaged, or needs code to load, which is refused.", hint) from error
    except RuntimeError as error:
        if "TorchScript" in str(error):
            hint = "Save the state_dict() of the loaded module and import that."
            raise ModelFileError(f"{path}: is a TorchScript program, which is refused.", hint) from error
        raise _damaged(path, error) from error
    except Exception as error:  # a damaged pickle may raise anything; none of it is executed
        raise _damaged(path, error) from error


def _safetensors(path: Path) -> dict[str, Tensor]:
    """A .safetensors file: length of the header, the header as JSON, the values of all tensors."""
    try:
        content = path.read_bytes()
        (length,) = struct.unpack_from("<Q", content)
        if length > min(_MAX_HEADER, len(content) - 8):
            raise ValueError("the header is cut off")
        header = json.loads(content[8 : 8 + length])
        data = bytearray(content[8 + length :])
        return {name: _tensor(entry, data) for name, entry in header.items() if name != "__metadata__"}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, struct.error) as error:
        raise _damaged(path, error) from error


def _tensor(entry: Mapping[str, Any], data: bytearray) -> Tensor:
    begin, end = entry["data_offsets"]
    if not 0 <= begin <= end <= len(data):
        raise ValueError("values are cut off")
    dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
    if begin == end:
        return torch.zeros(shape, dtype=dtype)
    return torch.frombuffer(memoryview(data)[begin:end], dtype=dtype).reshape(shape).clone()


def _damaged(path: Path, error: Exception) -> ModelFileError:
    reason = (str(error) or type(error).__name__).splitlines()[0]
    return ModelFileError(f"{path}: damaged, or not a file of weights ({reason}).", _NO_WEIGHTS)


@dataclass(frozen=True, slots=True)
class Branch:
    """The layers of one scale alone.

    Attributes:
        scale: product of the upsampler's factors.
        blocks: keys of the two convolutions of each pre-processing block; none for EDSR.
        upsampler: (key of a convolution, factor of the PixelShuffle after it).
    """

    scale: int
    blocks: tuple[tuple[str, str], ...]
    upsampler: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Layout:
    """Keys of all convolutions, without ".weight" and ".bias".

    Attributes:
        family: "edsr" or "mdsr".
        wrapped: whether the keys were super-image's for MDSR.
        features: channels of the body.
        blocks: keys of the two convolutions of each residual block.
    """

    family: str
    wrapped: bool
    features: int
    head: str
    blocks: tuple[tuple[str, str], ...]
    last: str
    branches: tuple[Branch, ...]
    tail: str

    @property
    def keys(self) -> set[str]:
        """Every key of the state dict that belongs to a convolution."""
        pairs = [*self.blocks, *(pair for branch in self.branches for pair in branch.blocks)]
        upsamplers = [key for branch in self.branches for key, _ in branch.upsampler]
        convolutions = [
            self.head,
            self.last,
            self.tail,
            *upsamplers,
            *(key for pair in pairs for key in pair),
        ]
        return {f"{key}.{part}" for key in convolutions for part in ("weight", "bias")}


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with EDSR-PyTorch's keys, if it has super-image's for MDSR."""
    if "head.0.0.weight" not in state:
        return dict(state)
    return {_unwrapped(key): value for key, value in state.items()}


def _unwrapped(key: str) -> str:
    return key if key.startswith(_MEANS) else re.sub(r"\.0\.(weight|bias)$", r".\1", key)


def find_layout(state: Mapping[str, Tensor]) -> Layout | None:
    """The layout of a state dict of EDSR or MDSR; None if it is of something else.

    It is one of them only if every key belongs to a layer and every kernel has the expected shape.
    """
    names = unwrapped(state)
    if "head.0.weight" not in names or names["head.0.weight"].ndim != 4:
        return None
    features = names["head.0.weight"].shape[0]
    wrapped = "head.0.0.weight" in state
    found = _mdsr(names, features, wrapped) if "tail.0.weight" in names else _edsr(names, features)
    scales = {branch.scale for branch in found.branches}
    if not scales or len(scales) < len(found.branches) or min(scales) < 2:
        return None
    extra = {key for key in names if not key.startswith(_MEANS)}
    return found if found.keys == extra and _fits(names, found) else None


def _edsr(names: Mapping[str, Tensor], features: int) -> Layout:
    blocks = _blocks(names, "body")
    branch = _branch(names, features, "tail.0", ())
    return Layout(
        "edsr",
        False,
        features,
        "head.0",
        blocks,
        f"body.{len(blocks)}",
        (branch,) if branch else (),
        "tail.1",
    )


def _mdsr(names: Mapping[str, Tensor], features: int, wrapped: bool) -> Layout:
    blocks = _blocks(names, "body")
    ids = dict.fromkeys(key.split(".")[1] for key in names if key.startswith("upsample."))
    branches = [_branch(names, features, f"upsample.{i}", _blocks(names, f"pre_process.{i}")) for i in ids]
    found = sorted((branch for branch in branches if branch), key=lambda branch: branch.scale)
    return Layout("mdsr", wrapped, features, "head.0", blocks, f"body.{len(blocks)}", tuple(found), "tail.0")


def _blocks(names: Mapping[str, Tensor], folder: str) -> tuple[tuple[str, str], ...]:
    count = 0
    while f"{folder}.{count}.body.0.weight" in names:
        count += 1
    return tuple((f"{folder}.{i}.body.0", f"{folder}.{i}.body.2") for i in range(count))


def _branch(
    names: Mapping[str, Tensor], features: int, folder: str, blocks: tuple[tuple[str, str], ...]
) -> Branch | None:
    """The upsampler under `folder`, every second module of which is a PixelShuffle."""
    found: list[tuple[str, int]] = []
    while (kernel := names.get(f"{folder}.{2 * len(found)}.weight")) is not None:
        found.append((f"{folder}.{2 * len(found)}", isqrt(kernel.shape[0] // features)))
    return Branch(prod(factor for _, factor in found), blocks, tuple(found)) if found else None


def _fits(names: Mapping[str, Tensor], found: Layout) -> bool:
    """Whether every kernel is (out, in, k, k) with odd k and the expected channels."""
    f = found.features
    shapes = {found.head: (f, 3), found.last: (f, f), found.tail: (3, f)}
    for branch in found.branches:
        shapes |= {key: (f * factor**2, f) for key, factor in branch.upsampler}
        shapes |= {key: (f, f) for pair in branch.blocks for key in pair}
    shapes |= {key: (f, f) for pair in found.blocks for key in pair}
    return all(_has_shape(names, key, *shape) for key, shape in shapes.items())


def _has_shape(names: Mapping[str, Tensor], key: str, outputs: int, inputs: int) -> bool:
    kernel, bias = names[f"{key}.weight"], names[f"{key}.bias"]
    if kernel.ndim != 4 or bias.shape != (outputs,):
        return False
    side = kernel.shape[-1]
    return kernel.shape == (outputs, inputs, side, side) and side % 2 == 1
