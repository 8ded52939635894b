"""PyTorch on the CPU or a CUDA device: runs the same ONNX file, operator by operator.

On a GPU the operators of a shape are recorded once and replayed (`torch_network`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from srcli.backends.base import BackendOptions, Batch, EngineInfo
from srcli.backends.libraries import refused, run_failed, settled
from srcli.errors import MissingExtraError
from srcli.models.spec import ModelSpec

NAME = "torch"
_TYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class TorchEngine:
    """An ONNX graph in PyTorch, channels_last; fp32 is true fp32, never TF32."""

    def __init__(self, network: Callable[[Batch], Batch], info: EngineInfo, scale: int) -> None:
        self.scale, self.info = scale, info
        self._network = network

    def run(self, lr: Batch) -> Batch:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W)."""
        import torch

        try:
            with torch.inference_mode():
                return self._network(lr)
        except (RuntimeError, MemoryError) as error:
            raise run_failed(NAME, error) from error


def load(path: Path, spec: ModelSpec, options: BackendOptions) -> TorchEngine:
    """Read an ONNX file into PyTorch. "auto" is fp16 on CUDA, bf16 on a CPU with native bf16, else fp32.

    Raises:
        MissingExtraError: PyTorch or onnx is not installed.
        BackendUnavailableError: the device is not there, or has not this precision.
        ModelFileError: the file cannot be read, or holds an operator this backend does not know.
    """
    try:
        import torch

        from srcli.backends.torch_network import Network
    except ImportError as error:
        raise MissingExtraError("The torch backend", "export") from error
    device = _device(torch, options.device)
    precision = settled(NAME, options.precision, _precisions(torch, device))
    torch.backends.cudnn.allow_tf32 = False  # of the whole process: several engines may run at once
    if options.threads:
        torch.set_num_threads(options.threads)
    in_float32 = spec.arithmetic == "fp16" and precision != "fp16"
    network = Network(path, getattr(torch, _TYPES[precision]), device, in_float32=in_float32)
    run = _on_gpu(network, device, options) if device.type == "cuda" else _on_cpu(network)
    return TorchEngine(run, EngineInfo(NAME, str(device), precision), spec.scale)


def _on_cpu(network: Any) -> Callable[[Batch], Batch]:
    import torch

    return lambda lr: network(torch.from_numpy(lr)).numpy()


def _on_gpu(network: Any, device: Any, options: BackendOptions) -> Callable[[Batch], Batch]:
    import torch

    from srcli.backends.torch_network import Cuda, Replayed

    torch.backends.cudnn.benchmark = (
        True  # of the whole process, too: tiles of one shape come again and again
    )
    return Replayed(network, Cuda(device), options.tell)


def _device(torch: Any, asked: str) -> Any:
    """The device asked for, if it is there."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if asked == "auto":
        asked = cuda[0] if cuda else "cpu"
    asked = "cuda:0" if asked == "cuda" else asked
    if asked not in ("cpu", *cuda):
        raise refused(NAME, "device", asked, ("cpu", *cuda))
    return torch.device(asked)


def _precisions(torch: Any, device: Any) -> tuple[str, ...]:
    """What the device computes natively, best default last."""
    half = ("fp16",) if device.type == "cuda" else ()
    return ("fp32", "bf16", *half) if has_bf16(torch, device) else ("fp32", *half)


def has_bf16(torch: Any, device: Any) -> bool:
    """Whether a device multiplies bf16 natively; elsewhere PyTorch emulates it, on CPUs far slower than fp32.

    Args:
        torch: the module, which only those import who run it.
        device: a torch.device, of kind "cpu" or "cuda".
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
