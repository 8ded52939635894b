"""An engine, a disk and a listener for tests of the folder pipeline."""

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np

from srcli.backends.base import EngineInfo
from srcli.io.pictures import Header, Picture
from srcli.jobs.folder import FolderOptions, FolderRun, Pixels
from srcli.jobs.memory import picture_bytes
from srcli.jobs.names import Job
from srcli.jobs.progress import NullProgress
from srcli.jobs.report import PictureResult
from srcli.jobs.sizes import Size, SizeRequest
from srcli.upscaler import Made

TIMEOUT = 20.0
TWICE = FolderOptions(SizeRequest(2))


class Double:
    """Nearest-neighbour x2, in two tiles."""

    scales: tuple[int, ...] = (2,)
    made = Made("double", (2,), EngineInfo("test", "cpu", "fp32"))

    def __call__(
        self, image: Pixels, *, size: Size | None, progress: Callable[[int, int], None] | None
    ) -> Pixels:
        for done in (1, 2):
            if progress is not None:
                progress(done, 2)
        return np.repeat(np.repeat(image, 2, axis=0), 2, axis=1)


double = Double()


def doubled_bytes(size: Size) -> int:
    """What a run counts for a picture of the disk that it doubles."""
    return picture_bytes(Header(*size, 3, 8, "png"), TWICE.size, Double.scales, "png")


def finish(run: FolderRun) -> FolderRun:
    """Run it, but not forever: a pipeline that hangs fails its test."""
    thread = threading.Thread(target=run.run, daemon=True)
    thread.start()
    thread.join(TIMEOUT)
    assert not thread.is_alive(), "the pipeline hangs"
    return run


@dataclass
class Disk:
    """Pictures in memory in place of `srcli.io.pictures`; faults and delays by name."""

    sizes: dict[str, Size] = field(default_factory=dict)
    faults: dict[tuple[str, str], Exception] = field(default_factory=dict)
    delay: Callable[[], float] = lambda: 0.0
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

    def read(self, path: Path) -> Picture:
        with self.lock:
            self.alive[path.name] = doubled_bytes(self.sizes[path.name])
            self.peak = max(self.peak, sum(self.alive.values()))
            self.most = max(self.most, len(self.alive))
        self._visit("read", path)
        shade = int(path.stem) % 251
        return Picture(np.full((*self.sizes[path.name], 3), shade, np.uint8))

    def use_up(
        self,
        path: Path,
        picture: Picture,
        *,
        format: str | None,  # noqa: A002
        quality: int | None,
    ) -> tuple[str, ...]:
        self._visit("use_up", path)
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
class Listener(NullProgress):
    """Remembers what it was told; interrupts the run after so many pictures."""

    interrupt_after: int = -1
    told: list[PictureResult] = field(default_factory=list)

    def finished(self, result: PictureResult) -> None:
        self.told.append(result)
        if len(self.told) == self.interrupt_after:
            raise KeyboardInterrupt
