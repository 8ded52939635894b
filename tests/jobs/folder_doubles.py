"""An engine, a disk and a watcher for tests of folder runs."""

import threading
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np

from srcli import memory
from srcli.backends.base import EngineInfo
from srcli.imaging.pixels import Pixels
from srcli.io.pictures import Header, Picture
from srcli.jobs.folder import FolderRun
from srcli.jobs.outputs import Job
from srcli.jobs.plan import Input
from srcli.jobs.report import PictureResult
from srcli.settings import Settings, Size
from srcli.stream import Computed, Image, Result, Wait

TIMEOUT = 20.0
TWICE = Settings("double", 2, provenance=False)
COMPUTED = Computed("double", (2,), EngineInfo("test", "cpu", "fp32"))
OnTile = Callable[[int, int, int], None]


class Double:
    """Nearest-neighbour x2, in two tiles, a picture at a time."""

    scales: tuple[int, ...] = (2,)
    picture_memory = 1 << 30

    def network_memory(self, source: Size, target: Size) -> int:
        return 0

    def model_for(self, image: Pixels) -> str:
        return "double"

    def leaves(self, source: Size, target: Size, model: object) -> bool:
        return False

    def candidates(self, source: Size, target: Size) -> list[Computed]:
        return [COMPUTED]

    def enlarge(self, image: Pixels, on_tile: Callable[[int, int], None]) -> Pixels:
        for done in (1, 2):
            on_tile(done, 2)
        return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)

    def stream(self, images: Iterable[Image | Wait], on_tile: OnTile) -> Generator[Result]:
        number = -1
        for image in images:
            if isinstance(image, Wait):
                continue
            number += 1
            try:
                given = image.pixels() if callable(image.pixels) else image.pixels
            except Exception as error:
                yield Result(None, None, error, 0.0)
                continue

            def tile(done: int, total: int, number: int = number) -> None:
                on_tile(number, done, total)

            yield self._result(given, tile)

    def _result(self, given: Pixels, tile: Callable[[int, int], None]) -> Result:
        try:
            return Result(self.enlarge(given, tile), COMPUTED, None, 0.0)
        except RuntimeError as error:
            return Result(None, None, error, 0.0)


double = Double()


@contextmanager
def untouched(path: Path) -> Iterator[Input]:
    """In place of `plan.unchanged`, for files that are not there."""
    yield Input(0, "")


class Small(Double):
    """With little memory for pictures."""

    def __init__(self, memory: int) -> None:
        self.picture_memory = memory


def doubled_bytes(size: Size, budget: int = Double.picture_memory) -> int:
    """What a run counts for a picture of the disk that it doubles."""
    return memory.of_picture(Header(*size, 3, 8, "png"), TWICE, Double.scales, "png", budget // 3)


def finish(run: FolderRun) -> FolderRun:
    """Run it, but not forever: a run that hangs fails its test."""
    thread = threading.Thread(target=run.run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the run hangs"
    return run


@dataclass
class Disk:
    """Pictures in memory in place of `srcli.io.pictures`; faults and delays by name."""

    sizes: dict[str, Size] = field(default_factory=dict)
    faults: dict[tuple[str, str], Exception] = field(default_factory=dict)
    delay: Callable[[], float] = lambda: 0.0
    budget: int = Double.picture_memory
    written: dict[str, Pixels] = field(default_factory=dict)
    alive: dict[str, int] = field(default_factory=dict)
    peak: int = 0
    most: int = 0
    lock: Any = field(default_factory=threading.Lock)

    def jobs(self, *sizes: Size) -> list[Job]:
        """A job for each size, 0.png, 1.png, ..."""
        self.sizes = {f"{index}.png": size for index, size in enumerate(sizes)}
        return [Job(Path("in", name), Path("out", name)) for name in self.sizes]

    def probe(self, path: Path) -> Header:
        self._visit("probe", path)
        return Header(*self.sizes[path.name], 3, 8, "png")

    def read(self, path: Path, **options: object) -> Picture:
        with self.lock:
            self.alive[path.name] = doubled_bytes(self.sizes[path.name], self.budget)
            self.peak = max(self.peak, sum(self.alive.values()))
            self.most = max(self.most, len(self.alive))
        self._visit("read", path)
        shade = int(path.stem) % 251
        return Picture(np.full((*self.sizes[path.name], 3), shade, np.uint8))

    def write(self, path: Path, picture: Picture, **options: object) -> tuple[str, ...]:
        self._visit("write", path)
        with self.lock:
            self.written[path.name] = picture.pixels
            del self.alive[path.name]
        return ()

    def _visit(self, stage: str, path: Path) -> None:
        sleep(self.delay())
        if error := self.faults.get((stage, path.name)):
            with self.lock:
                self.alive.pop(path.name, None)
            raise error


@dataclass
class Watcher:
    """Remembers results; interrupts the run after so many pictures."""

    interrupt_after: int = -1
    seen: list[PictureResult] = field(default_factory=list)

    def start(self) -> None:
        """A run begins."""

    def tile(self, job: Job, done: int, total: int) -> None:
        """A tile is ready."""

    def frames(self, job: Job, done: int, total: int, enlarged: int) -> None:
        """Frames are ready."""

    def finished(self, result: PictureResult) -> None:
        self.seen.append(result)
        if len(self.seen) == self.interrupt_after:
            raise KeyboardInterrupt

    def stopping(self) -> None:
        """The run is to stop."""
