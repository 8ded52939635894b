"""A shape's second run is recorded and later ones are replayed, with a stand-in of the GPU; and on one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from engines import load, picture

torch = pytest.importorskip("torch")

from srcli.backends import devices  # noqa: E402
from srcli.backends.base import Batch, EngineInfo  # noqa: E402
from srcli.backends.torch import TorchEngine  # noqa: E402
from srcli.backends.torch_network import (  # noqa: E402
    MAX_SHAPES,
    Replayed,
    Shape,
    Tensor,
    Work,
)


class FakeGpu:
    """A network that doubles every pixel, and a GPU in host memory that runs it.

    Args:
        problem: of recording; empty: it works.
        most: elements that a tensor may have.
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
    def at_work(self) -> Iterator[None]:
        self.working = True
        yield
        self.working = False

    def record(self, work: Work) -> Work:
        if self.problem:
            raise RuntimeError(self.problem)
        work()
        self.log.append("record")
        assert self.last is not None
        x, y = self.last
        y.zero_()  # nothing has run yet

        def replay() -> None:
            self.log.append("replay")
            y.copy_(x * 2)

        return replay

    def wait(self) -> None:
        self.log.append("wait")

    def give_back(self) -> None:
        self.working = False
        self.log.append("give back")


def made(gpu: FakeGpu) -> tuple[Replayed, list[str]]:
    told: list[str] = []
    return Replayed(gpu.network, gpu, told.append), told


def right(run: Replayed, lr: Batch) -> bool:
    return np.array_equal(run(lr), lr * 2)


def test_the_second_run_of_a_shape_is_recorded_and_later_ones_replayed() -> None:
    gpu = FakeGpu()
    run, told = made(gpu)
    logs = []
    for seed in range(4):
        assert right(run, picture(4, 5, seed))
        logs.append(list(gpu.log))
        gpu.log.clear()
    again = ["replay", "wait"]
    assert logs == [["network", "wait"], ["network", "record", *again], again, again]
    assert (run.graphs, run.problem, told) == (1, "", [])


def test_results_stay_valid_and_shapes_are_apart() -> None:
    run, _ = made(FakeGpu())
    first = run(picture(4, 4))
    kept = first.copy()
    for seed, size in enumerate([(4, 4), (8, 4), (4, 4), (8, 4), (4, 8), (8, 4)]):
        assert right(run, picture(*size, seed))
    assert np.array_equal(first, kept)
    assert run.graphs == 2


def test_only_the_last_shapes_are_kept() -> None:
    run, _ = made(FakeGpu())
    for width in range(1, MAX_SHAPES + 3):
        assert right(run, picture(4, width))
        assert right(run, picture(4, width, 1))
    assert run.graphs == MAX_SHAPES


def test_what_cannot_be_recorded_runs_step_by_step_and_says_so_once() -> None:
    gpu = FakeGpu("CUDA error: operation not permitted when stream is capturing")
    run, told = made(gpu)
    for seed in range(4):
        assert right(run, picture(4, 5, seed))
        assert right(run, picture(5, 4, seed))
    assert run.graphs == 0
    assert len(told) == 1
    assert "operation not permitted" in told[0]


def test_out_of_memory_gives_everything_back_and_a_smaller_tile_runs() -> None:
    gpu = FakeGpu(most=3 * 8 * 8)
    run, _ = made(gpu)
    engine = TorchEngine(run, load_info(), 1)
    for seed in range(2):
        engine.run(picture(8, 8, seed))
    assert run.graphs == 1
    with pytest.raises(MemoryError):
        engine.run(picture(16, 16))
    assert (run.graphs, gpu.log[-1]) == (0, "give back")
    lr = picture(8, 8, 5)
    assert np.array_equal(engine.run(lr), lr * 2)


def load_info() -> EngineInfo:
    return EngineInfo("torch", "cuda:0", "fp16")


@pytest.mark.gpu
@pytest.mark.skipif(not devices.ask().gpus or not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_on_a_gpu_the_second_run_is_recorded(precision: str, tiny_models: Path) -> None:
    engine, lr = load("torch", tiny_models / "tiny-x2.onnx", precision, "cuda"), picture(24, 40)
    assert isinstance(engine, TorchEngine)
    first = engine.run(lr)
    for graphs in (1, 1):
        assert np.array_equal(engine.run(lr), first), "the same kernels, started in another way"
        assert isinstance(engine._network, Replayed)
        assert (engine._network.graphs, engine._network.problem) == (graphs, "")
