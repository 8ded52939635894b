"""PyTorch: CUDA graphs, with a stand-in of the GPU and on one, and unknown operators."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnx
import pytest
import tiny_networks
from engines import load, picture
from onnx import helper

torch = pytest.importorskip("torch")

from srcli.backends import devices  # noqa: E402
from srcli.backends.base import Batch, EngineInfo  # noqa: E402
from srcli.backends.torch import TorchEngine  # noqa: E402
from srcli.backends.torch_network import (  # noqa: E402
    MAX_SHAPES,
    CudaGraphs,
    Shape,
    Tensor,
    Work,
)
from srcli.errors import ModelFileError  # noqa: E402


class FakeGpu:
    """A network that doubles every pixel, and a GPU in host memory that runs it.

    Args:
        problem: why capturing fails; empty: it works.
        most: elements of a tensor.
    """

    def __init__(self, problem: str = "", most: int = 10**9) -> None:
        self.problem, self.most = problem, most
        self.log: list[str] = []
        self.working = False
        self.last: tuple[Tensor, Tensor] | None = None

    def network(self, x: Tensor) -> Tensor:
        assert self.working, "queued on another stream"
        if x.numel() > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")
        self.log.append("network")
        self.last = x, x * 2
        return self.last[1]

    def pinned(self, shape: Shape) -> Tensor:
        return torch.empty(shape)

    empty = pinned

    @contextmanager
    def on_stream(self) -> Iterator[None]:
        self.working = True
        yield
        self.working = False

    def capture(self, work: Work) -> Work:
        if self.problem:
            raise RuntimeError(self.problem)
        work()
        self.log.append("capture")
        assert self.last is not None
        x, y = self.last
        y.zero_()  # nothing has run yet

        def launch() -> None:
            self.log.append("launch")
            y.copy_(x * 2)

        return launch

    def synchronize(self) -> None:
        self.log.append("synchronize")

    def free_unused(self) -> None:
        self.working = False
        self.log.append("free")


def cuda_graphs(gpu: FakeGpu) -> CudaGraphs:
    return CudaGraphs(gpu.network, gpu)


def right(run: CudaGraphs, lr: Batch) -> bool:
    return np.array_equal(run(lr), lr * 2)


def test_second_run_of_a_shape_captures_a_graph(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gpu = FakeGpu()
    run = cuda_graphs(gpu)
    logs = []
    for seed in range(4):
        assert right(run, picture(4, 5, seed))
        logs.append(list(gpu.log))
        gpu.log.clear()
    again = ["launch", "synchronize"]
    assert logs == [["network", "synchronize"], ["network", "capture", *again], again, again]
    assert (run.graphs, run.problem, caplog.messages) == (1, "", [])


def test_results_stay_valid_across_shapes() -> None:
    run = cuda_graphs(FakeGpu())
    first = run(picture(4, 4))
    kept = first.copy()
    for seed, size in enumerate([(4, 4), (8, 4), (4, 4), (8, 4), (4, 8), (8, 4)]):
        assert right(run, picture(*size, seed))
    assert np.array_equal(first, kept)
    assert run.graphs == 2


def test_least_recently_used_shapes_are_dropped() -> None:
    run = cuda_graphs(FakeGpu())
    for width in range(1, MAX_SHAPES + 3):
        assert right(run, picture(4, width))
        assert right(run, picture(4, width, 1))
    assert run.graphs == MAX_SHAPES


def test_failed_capture_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    gpu = FakeGpu("CUDA error: operation not permitted when stream is capturing")
    run = cuda_graphs(gpu)
    for seed in range(4):
        assert right(run, picture(4, 5, seed))
        assert right(run, picture(5, 4, seed))
    assert run.graphs == 0
    assert len(caplog.messages) == 1
    assert "operation not permitted" in caplog.messages[0]


def test_out_of_memory_frees_all_and_smaller_runs() -> None:
    gpu = FakeGpu(most=3 * 8 * 8)
    run = cuda_graphs(gpu)
    engine = TorchEngine(run, load_info(), 1)
    for seed in range(2):
        engine.run(picture(8, 8, seed))
    assert run.graphs == 1
    with pytest.raises(MemoryError):
        engine.run(picture(16, 16))
    assert (run.graphs, gpu.log[-1]) == (0, "free")
    lr = picture(8, 8, 5)
    assert np.array_equal(engine.run(lr), lr * 2)


def load_info() -> EngineInfo:
    return EngineInfo("torch", "cuda:0", "fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not devices.ask().gpus or not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_second_run_is_a_cuda_graph_on_gpu(precision: str, tiny_models: Path) -> None:
    engine, lr = load("torch", tiny_models / "tiny-x2.onnx", precision, "cuda"), picture(24, 40)
    assert isinstance(engine, TorchEngine)
    first = engine.run(lr)
    for graphs in (1, 1):
        assert np.array_equal(engine.run(lr), first), "the same kernels as a CUDA graph"
        assert isinstance(engine._network, CudaGraphs)
        assert (engine._network.graphs, engine._network.problem) == (graphs, "")


def test_unknown_operator_is_named(tmp_path: Path) -> None:
    model = tiny_networks.build(tiny_networks.tiny_spec(2))
    model.graph.node[-1].output[0] = "before"
    model.graph.node.append(helper.make_node("Erf", ["before"], ["sr"]))
    path = tmp_path / "erf.onnx"
    onnx.save(model, path)
    with pytest.raises(ModelFileError, match="Erf"):
        load("torch", path)
