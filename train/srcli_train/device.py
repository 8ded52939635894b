"""The device that a process trains on."""

import torch

from srcli.errors import UsageError
from srcli_train.peers import local_rank


def find_device(name: str) -> torch.device:
    """The device of that name, "auto" being the GPU if there is one; of several processes each takes its own.

    Raises:
        UsageError: there is no such device here, or training on it is not supported.
    """
    device = named_device(name)
    if local_rank() is not None:
        _refuse_one(device)
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


def enough_devices(name: str, processes: int) -> None:
    """Refuse more processes than there are GPUs to train on; on the CPU any number share the cores.

    Raises:
        UsageError: see above, or the name is no device to train on or of one GPU.
    """
    device = named_device(name)
    _refuse_one(device)
    if device.type == "cpu":
        return
    if processes > (count := torch.cuda.device_count()):
        hint = f"Use --gpus {count}." if count > 1 else "Leave out --gpus." if count else "Use --device cpu."
        raise UsageError(f"{processes} processes need a GPU each, and there are {count}.", hint)


def _refuse_one(device: torch.device) -> None:
    """Several processes need a GPU each."""
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
