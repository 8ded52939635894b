"""What a benchmark found and on which machine, as a table, JSON, CSV and Markdown."""

import csv
import io
import json
import math
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from srcli import __version__
from srcli.backends import devices
from srcli.backends.base import EngineInfo
from srcli.benchmark import speed
from srcli.benchmark.quality import Quality, Stages
from srcli.benchmark.rounds import Spread
from srcli.benchmark.speed import Speed
from srcli.errors import OutputError
from srcli.io.storage import write_text

SCHEMA = "srcli.benchmark/3"
"""Name and version of the JSON report; the number grows when a field changes its meaning or goes."""

HEADER = (
    "model", "engine", "input", "start s", "tile ms", "p95 ms", "spread", "MP/s", "TFLOP/s", "of peak",
    "host MB", "GPU MB", "dB to fp32", "dB to HR", "decode s", "infer s", "encode s",
)  # fmt: skip

NONE = "–"


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine as it was before the first measurement.

    Attributes:
        cpu: its name; cores: those this process may use; features: its vector units that matter.
        gpus: names, in the driver's order.
        memory: bytes of RAM; None if it is not known.
        system: operating system and architecture.
        load: one-minute load average; None if it is not known.
    """

    cpu: str
    cores: int
    features: tuple[str, ...]
    gpus: tuple[str, ...]
    memory: int | None
    system: str
    load: float | None

    @property
    def line(self) -> str:
        """All of it in one line for people."""
        features = f" ({', '.join(self.features)})" if self.features else ""
        parts = [f"{self.cpu}, {self.cores} cores{features}", *self.gpus]
        parts += [f"{self.memory / 2**30:.0f} GiB"] if self.memory else []
        parts += [self.system]
        parts += [f"load before: {self.load:.2f}"] if self.load is not None else []
        return "; ".join(parts)


def here() -> Machine:
    """This machine, now."""
    processor = devices.processor()
    return Machine(
        cpu=processor.name,
        cores=processor.cores,
        features=processor.features,
        gpus=tuple(gpu.name for gpu in devices.ask().gpus),
        memory=_memory(),
        system=f"{platform.system()} {platform.machine()}",
        load=_load(),
    )


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except (AttributeError, OSError):
        return None


def versions() -> dict[str, str]:
    """Versions of Python and of the installed packages that do the work."""
    return {"python": platform.python_version(), **devices.installed()}


def now() -> str:
    """Date and time, UTC, to the minute."""
    return f"{datetime.now(UTC):%Y-%m-%d %H:%M UTC}"


@dataclass(frozen=True, slots=True)
class Row:
    """One model at one scale on one engine at one size.

    Attributes:
        model: name of the network.
        scale: output / input.
        size: side of the square input, LR pixels.
        tile: largest side of its tiles; an input that is no larger is one tile.
        info: what ran; what was asked for, where nothing did.
        start: seconds from the start of a fresh process to its first tile.
        host_memory: peak bytes of that process; None where they are not known.
        device_memory: bytes that it took of the device until then; None where they are not known.
        speed: of tiles.
        stages: of one picture, from file to file.
        quality: against fp32 and HR.
        problem: what failed and why; None stands for every figure that it cost. Empty: nothing.
    """

    model: str
    scale: int
    size: int
    tile: int
    info: EngineInfo
    start: Spread | None
    host_memory: int | None
    device_memory: int | None
    speed: Speed | None
    stages: Stages | None
    quality: Quality | None
    problem: str = ""

    @property
    def engine(self) -> str:
        """Backend, precision and device."""
        return f"{self.info.backend} {self.info.precision} {self.info.device}"

    @property
    def input(self) -> str:
        """Its side, and that of its tiles where there are several."""
        return f"{self.size}²" if self.size <= self.tile else f"{self.size}² in {self.tile}²"

    @property
    def share(self) -> float | None:
        """TFLOP/s as a share of the peak; None where one of them is not known."""
        tflops, best = _of(self.speed, "tflops"), _of(self.speed, "peak")
        return tflops / best if tflops and best else None

    @property
    def cells(self) -> tuple[str, ...]:
        """As people read it, under HEADER."""
        figures = self.figures
        latency = self.speed.latency if self.speed else None
        return (
            f"{self.model} x{self.scale}",
            self.engine,
            self.input,
            _shown(figures["start_s"], 2),
            _shown(figures["latency_s"], 1, 1e3),
            _shown(figures["latency_p95_s"], 1, 1e3),
            NONE if latency is None else f"{latency.width:.0%}",
            _shown(figures["output_mp_per_s"], 3),
            _shown(figures["tflops"], 3),
            NONE if self.share is None else f"{self.share:.0%}",
            _shown(figures["host_memory_bytes"], 0, 1e-6),
            _shown(figures["device_memory_bytes"], 0, 1e-6),
            _shown(figures["psnr_y_to_fp32_db"], 2),
            _shown(figures["psnr_y_to_hr_db"], 2),
            *(_shown(figures[f"{stage}_s"], 3) for stage in ("decode", "infer", "encode")),
        )

    @property
    def figures(self) -> dict[str, int | float | None]:
        """All that was measured, flat, units in the names, in full precision."""
        speed, latency = self.speed, self.speed.latency if self.speed else None
        return {
            "start_s": _of(self.start, "median"),
            "start_low_s": _of(self.start, "lowest"),
            "start_high_s": _of(self.start, "highest"),
            "starts": _of(self.start, "repetitions"),
            "latency_s": _of(latency, "median"),
            "latency_p95_s": _of(latency, "p95"),
            "latency_low_s": _of(latency, "lowest"),
            "latency_high_s": _of(latency, "highest"),
            "repetitions": _of(latency, "repetitions"),
            "tiles_in_a_row": _of(speed, "tiles"),
            "output_mp_per_s": _of(speed, "megapixels"),
            "tflops": _of(speed, "tflops"),
            "peak_tflops": _of(speed, "peak"),
            "share_of_peak": self.share,
            "host_memory_bytes": self.host_memory,
            "device_memory_bytes": self.device_memory,
            "psnr_y_to_fp32_db": _of(self.quality, "to_fp32"),
            "psnr_y_to_hr_db": _of(self.quality, "to_hr"),
            "decode_s": _of(self.stages, "decode"),
            "infer_s": _of(self.stages, "infer"),
            "encode_s": _of(self.stages, "encode"),
        }

    @property
    def record(self) -> dict[str, str | int | float | None]:
        """Everything in it, flat."""
        names: dict[str, str | int | float | None] = {
            "model": self.model,
            "scale": self.scale,
            "backend": self.info.backend,
            "device": self.info.device,
            "precision": self.info.precision,
            "input_px": self.size,
            "tile_px": self.tile,
        }
        return {**names, **self.figures, "problem": self.problem}


@dataclass(frozen=True, slots=True)
class Report:
    """A whole benchmark.

    Attributes:
        rows: as far as it has come.
        machine, versions: where and with what it ran.
        command: what repeats it.
        date: when it began, UTC.
        repetitions: rounds that count; starts: fresh processes.
        picture: side of the square JPEG whose stages were timed, LR pixels.
        measured_on: what quality was measured on.
    """

    rows: tuple[Row, ...]
    machine: Machine
    versions: dict[str, str]
    command: str
    date: str
    repetitions: int
    starts: int
    picture: int
    measured_on: str

    def with_rows(self, rows: Sequence[Row]) -> "Report":
        """The same with more rows."""
        return replace(self, rows=(*self.rows, *rows))

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed, a line each."""
        return tuple(
            f"{row.model} x{row.scale}, {row.engine}, {row.input}: {row.problem}"
            for row in self.rows
            if row.problem
        )

    @property
    def table(self) -> list[list[str]]:
        """HEADER and the cells of all rows."""
        return [list(HEADER), *(list(row.cells) for row in self.rows)]

    @property
    def summary(self) -> str:
        """The same in one line."""
        return (
            f"Median of {self.repetitions} rounds; PSNR of luma on {self.measured_on}. "
            "All about the method: docs/benchmarks.md, and every report (--markdown FILE)."
        )

    @property
    def method(self) -> str:
        """How it was measured, for people."""
        return (
            f"Tiles: {self.repetitions} rounds in turns after a warm-up, median and 95th percentile of one; "
            "spread is highest less lowest, as a share of the median. MP/s and TFLOP/s are those of many "
            "tiles in a row where the input has several or the engine works on several at once, run as "
            "pictures of 8 bits are. TFLOP/s count direct convolution, two operations a multiply-add (a "
            f"faster algorithm may pass 100%); the peak is a large matrix product ({speed.SIDE}³, on a GPU "
            f"{speed.GPU_SIDE}³) in the same precision and rounds. {self._started}PSNR: luma, shave = scale, "
            f"on {self.measured_on}. Stages: a JPEG of {self.picture}×{self.picture}, through tiles of this "
            "size or the smallest that the network's halo allows."
        )

    @property
    def _started(self) -> str:
        if not self.starts:
            return ""
        return (
            f"Start: to the first tile of a fresh process, median of {self.starts}, with its highest peak of "
            "memory and with what it took of an NVIDIA GPU's, other programs' changes included. "
        )

    @property
    def facts(self) -> tuple[str, ...]:
        """Command, date, machine and versions, a line each."""
        versions = ", ".join(f"{name} {number}" for name, number in self.versions.items())
        return (self.command, self.date, self.machine.line, versions)

    def to_json(self) -> str:
        """Indented JSON; an infinite PSNR, of equal pictures, is null."""
        head = {
            "schema": SCHEMA,
            "version": __version__,
            "command": self.command,
            "date": self.date,
            "machine": asdict(self.machine),
            "versions": self.versions,
            "picture_px": self.picture,
            "measured_on": self.measured_on,
            "method": self.method,
        }
        rows = [{key: _plain(value) for key, value in row.record.items()} for row in self.rows]
        return json.dumps({**head, "rows": rows}, indent=2) + "\n"

    def to_csv(self) -> str:
        """One line a row, full precision; empty where there is no figure."""
        text = io.StringIO()
        writer = csv.DictWriter(text, list(self.rows[0].record), lineterminator="\n")
        writer.writeheader()
        writer.writerows(row.record for row in self.rows)
        return text.getvalue()

    def to_markdown(self) -> str:
        """The table, how it was made, and on what."""
        header, *rows = self.table
        lines = markdown_table(header, rows, left=2)
        facts = [f"`{self.facts[0]}`", *self.facts[1:]]
        return (
            "\n".join([*lines, "", self.method, "", *(f"- {one}" for one in (*facts, *self.problems))]) + "\n"
        )


def _of(figures: object, name: str) -> Any:
    """One of them; None where there are none."""
    return None if figures is None else getattr(figures, name)


def _shown(value: float | None, digits: int, factor: float = 1.0) -> str:
    """A number for people; infinity, of equal pictures, as such."""
    if value is None:
        return NONE
    return "∞" if math.isinf(value) else f"{value * factor:.{digits}f}"


def _plain(value: str | float | None) -> str | float | None:
    return None if isinstance(value, float) and math.isinf(value) else value


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 99) -> list[str]:
    """A Markdown table's lines; the first `left` columns are left-aligned, the others right-aligned."""
    rule = ["---" if column < left else "---:" for column in range(len(header))]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]


def write(path: Path, text: str) -> None:
    """Replace a file by this text (UTF-8); its folder is made if it is missing.

    Raises:
        OutputError: it cannot be written there.
    """
    try:
        write_text(path, text)
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}).", "Choose another place."
        ) from error
