"""The device that trains, and the precision it computes in."""

import logging
import os

import torch

from srcli.backends.devices import processor
from srcli.backends.torch import has_bf16
from srcli.errors import UsageError
from srcli_train.ranks import local_rank

_log = logging.getLogger(__name__)
_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def find_device(name: str) -> torch.device:
    """The device of that name, "auto" being the GPU if there is one; of several ranks each takes its own.

    Raises:
        UsageError: there is no such device here, or training on it is not supported.
    """
    device = named_device(name)
    if local_rank() is not None:
        _check_no_index(device)
    if device.type == "cuda" and device.index is None:
        device = torch.device("cuda", local_rank() or 0)
    if device.type == "cuda" and device.index >= (count := torch.cuda.device_count()):
        hint = "Train with --device cpu, or mend the driver."
        if count and local_rank() is not None:
            hint = f"Start fewer processes: --gpus {count}."
        raise UsageError(f"There is no device {device} here.", hint)
    if device.type == "cuda":
        torch.cuda.set_device(device)  # CUDA graphs and NCCL work on the current one
    return device


def check_device_count(name: str, processes: int) -> None:
    """Refuse more processes than there are GPUs to train on; on the CPU any number share the cores.

    Raises:
        UsageError: see above, or the name is no device to train on or of one GPU.
    """
    device = named_device(name)
    _check_no_index(device)
    if device.type == "cpu":
        return
    if processes > (count := torch.cuda.device_count()):
        hint = f"Use --gpus {count}." if count > 1 else "Leave out --gpus." if count else "Use --device cpu."
        raise UsageError(f"{processes} processes need a GPU each, and there are {count}.", hint)


def _check_no_index(device: torch.device) -> None:
    """Refuse one GPU by number for several processes."""
    if device.type == "cuda" and device.index is not None:
        hint = "Use --device cuda: each takes its own."
        raise UsageError(f"Several processes cannot share {device}.", hint)


def named_device(name: str) -> torch.device:
    """The device of that name.

    Raises:
        UsageError: it is none, or not one to train on.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"Device {name!r} is not known.", "Use cpu, cuda or cuda:N.") from error
    if device.type not in ("cpu", "cuda"):
        raise UsageError(f"Training on {name!r} is not supported.", "Use cpu, cuda or cuda:N.")
    return device


def machine(device: torch.device) -> str:
    """What trains, in a few words: "AMD EPYC, 2 cores" or "NVIDIA H200"."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{processor().name}, {os.cpu_count()} cores"


def resolve_precision(precision: str, device: torch.device) -> str:
    """A recipe's precision on a device: "bf16" or "fp32".

    Args:
        precision: "bf16", "fp32", or "auto": bf16 where the device multiplies it natively, else fp32.

    Raises:
        UsageError: bf16 where the device only emulates it. On a CPU without AVX512-BF16 or AMX PyTorch takes
            about ninety times as long for a product in bf16 as for one in fp32.
    """
    if precision == "fp32":
        return "fp32"
    if has_bf16(torch, device):
        return "bf16"
    if precision == "bf16":
        raise UsageError(
            f"PyTorch knows no native bf16 on this {device.type}, and emulating it is far slower than fp32.",
            "Leave out --precision, or train with --precision fp32.",
        )
    return "fp32"


def resumed_precision(before: str, device: torch.device) -> str:
    """The precision of a run that is resumed: its own, or, logged, fp32 on a device without native bf16."""
    precision = before if before == "fp32" else resolve_precision("auto", device)
    if (before, precision) == ("bf16", "fp32"):
        _log.warning(
            "The run computed in bf16, which is not native on this %s: it goes on in fp32.", device.type
        )
    return precision


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """PyTorch's autocast for a recipe's precision."""
    dtype = _DTYPES[resolve_precision(precision, device)]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def fastest_dtype(device: torch.device) -> torch.dtype:
    """bfloat16 where the device has it natively, else float32: for what needs few digits."""
    return _DTYPES[resolve_precision("auto", device)]
