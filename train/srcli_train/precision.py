"""What a device computes in: bf16 where it multiplies that natively, else fp32."""

from collections.abc import Callable

import torch

from srcli.backends.torch import has_bf16
from srcli.errors import UsageError

_DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


def settled(precision: str, device: torch.device) -> str:
    """A recipe's precision on a device: "bf16" or "fp32".

    Args:
        precision: "bf16", "fp32", or "auto" for the faster of the two that the device has.

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


def continued(before: str, device: torch.device, note: Callable[[str], None]) -> str:
    """The precision in which a run goes on: its own, or fp32 on a device without native bf16, and says so."""
    precision = before if before == "fp32" else settled("auto", device)
    if (before, precision) == ("bf16", "fp32"):
        note(f"The run computed in bf16, which is not native on this {device.type}: it goes on in fp32.")
    return precision


def lowered(device: torch.device, precision: str) -> torch.autocast:
    """Autocast for a recipe's precision."""
    dtype = _DTYPES[settled(precision, device)]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def rough(device: torch.device) -> torch.dtype:
    """The fastest type for what needs few digits."""
    return _DTYPES[settled("auto", device)]
