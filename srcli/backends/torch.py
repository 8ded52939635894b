"""PyTorch on the CPU or a CUDA device: runs the same ONNX file, operator by operator.

On a GPU the operators of each input shape run as one CUDA graph (`torch_network`).
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from srcli.backends.base import Batch, EngineInfo, choose_precision, refused, run_failed
from srcli.errors import MissingExtraError
from srcli.models.spec import ModelSpec
from srcli.settings import Settings

NAME = "torch"
_DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


class TorchEngine:
    """An ONNX graph in PyTorch, channels_last; fp32 never uses TF32."""

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


def load(path: Path, spec: ModelSpec, settings: Settings) -> TorchEngine:
    """Read an ONNX file into PyTorch. "auto" is fp16 on CUDA, bf16 on a CPU with native bf16, else fp32.

    Raises:
        MissingExtraError: PyTorch or onnx is not installed.
        BackendUnavailableError: the device is not present, or lacks the precision.
        ModelFileError: the file cannot be read, or has an operator that this backend lacks.
    """
    try:
        import torch

        from srcli.backends.torch_network import Network
    except ImportError as error:
        raise MissingExtraError("The torch backend", "export") from error
    device = _device(torch, settings.device)
    precision = choose_precision(NAME, settings.precision, _precisions(torch, device))
    torch.backends.cudnn.allow_tf32 = False  # of the whole process, since several engines may run at once
    if settings.threads:
        torch.set_num_threads(settings.threads)
    to_fp32 = spec.arithmetic == "fp16" and precision != "fp16"
    network = Network(path, getattr(torch, _DTYPES[precision]), device, rewrite_to_fp32=to_fp32)
    run = _on_gpu(network, device) if device.type == "cuda" else _on_cpu(network)
    return TorchEngine(run, EngineInfo(NAME, str(device), precision), spec.scale)


def _on_cpu(network: Any) -> Callable[[Batch], Batch]:
    import torch

    return lambda lr: network(torch.from_numpy(lr)).numpy()


def _on_gpu(network: Any, device: Any) -> Callable[[Batch], Batch]:
    import torch

    from srcli.backends.torch_network import CudaGraphs, TorchGpu

    torch.backends.cudnn.benchmark = True  # of the whole process; pays off since tiles share few shapes
    return CudaGraphs(network, TorchGpu(device))


def _device(torch: Any, asked: str) -> Any:
    """The device asked for, if it is present."""
    cuda = [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if asked == "auto":
        asked = cuda[0] if cuda else "cpu"
    asked = "cuda:0" if asked == "cuda" else asked
    if asked not in ("cpu", *cuda):
        raise refused(NAME, "device", asked, ("cpu", *cuda))
    return torch.device(asked)


def _precisions(torch: Any, device: Any) -> tuple[str, ...]:
    """Precisions that the device computes natively, best default last."""
    fp16 = ("fp16",) if device.type == "cuda" else ()
    return ("fp32", "bf16", *fp16) if has_bf16(torch, device) else ("fp32", *fp16)


def has_bf16(torch: Any, device: Any) -> bool:
    """Whether a device multiplies bf16 natively; elsewhere PyTorch emulates it, on CPUs far slower than fp32.

    Args:
        torch: the module, passed in so that importing this file does not import it.
        device: a torch.device, of kind "cpu" or "cuda".
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    return bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
