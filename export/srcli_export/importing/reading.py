"""Reads files of weights without executing anything in them."""

import json
import pickle
import struct
import warnings
from collections.abc import Mapping
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
