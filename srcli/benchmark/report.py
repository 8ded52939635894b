"""What a benchmark found, and the same as a table, JSON, CSV and Markdown."""

import csv
import io
import json
import math
from dataclasses import asdict, dataclass

from srcli import __version__
from srcli.benchmark import peak
from srcli.benchmark.machine import Machine
from srcli.benchmark.quality import Quality
from srcli.benchmark.rounds import Spread
from srcli.benchmark.speed import Speed
from srcli.benchmark.stages import Stages

SCHEMA = "srcli.benchmark/1"
"""Name and version of the JSON report; the number grows when a field changes its meaning or goes."""

HEADER = (
    "model", "engine", "tile", "start s", "tile ms", "p95 ms", "spread", "MP/s", "TFLOP/s", "of peak",
    "host MB", "GPU MB", "dB to f32", "dB to HR", "decode s", "infer s", "encode s",
)  # fmt: skip

NONE = "–"


@dataclass(frozen=True, slots=True)
class Row:
    """One model at one scale on one engine at one size.

    Attributes:
        model: name of the network.
        scale: output / input.
        size: side of the square input and of the tile, LR pixels.
        start: seconds from the start of a fresh process to its first tile.
        host_memory, device_memory: peak bytes of that process; None where they are not known.
        speed: of one tile.
        stages: of one picture, from file to file.
        quality: against f32 and HR.
    """

    model: str
    scale: int
    size: int
    start: Spread
    host_memory: int | None
    device_memory: int | None
    speed: Speed
    stages: Stages
    quality: Quality

    @property
    def engine(self) -> str:
        """Backend, precision and device that really ran."""
        info = self.speed.info
        return f"{info.backend} {info.precision} {info.device}"

    @property
    def share(self) -> float | None:
        """TFLOP/s as a share of the peak; None where one of them is not known."""
        tflops, peak = self.speed.tflops, self.speed.peak
        return tflops / peak if tflops and peak else None

    @property
    def cells(self) -> tuple[str, ...]:
        """As people read it, under HEADER."""
        latency, quality, stages = self.speed.latency, self.quality, self.stages
        return (
            f"{self.model} x{self.scale}",
            self.engine,
            f"{self.size}²",
            f"{self.start.median:.2f}",
            _shown(latency.median, 1, 1e3),
            _shown(latency.p95, 1, 1e3),
            f"{latency.width:.0%}",
            _shown(self.speed.megapixels, 3),
            _shown(self.speed.tflops, 3),
            NONE if self.share is None else f"{self.share:.0%}",
            _shown(self.host_memory, 0, 1e-6),
            _shown(self.device_memory, 0, 1e-6),
            _shown(quality.to_f32, 2),
            _shown(quality.to_hr, 2),
            *(f"{seconds:.3f}" for seconds in (stages.decode, stages.infer, stages.encode)),
        )

    @property
    def record(self) -> dict[str, str | int | float | None]:
        """Everything in it, flat, units in the names, in full precision."""
        info, latency, quality = self.speed.info, self.speed.latency, self.quality
        return {
            "model": self.model,
            "scale": self.scale,
            "backend": info.backend,
            "device": info.device,
            "precision": info.precision,
            "tile_px": self.size,
            "start_s": self.start.median,
            "start_low_s": self.start.lowest,
            "start_high_s": self.start.highest,
            "starts": self.start.repetitions,
            "latency_s": latency.median,
            "latency_p95_s": latency.p95,
            "latency_low_s": latency.lowest,
            "latency_high_s": latency.highest,
            "repetitions": latency.repetitions,
            "output_mp_per_s": self.speed.megapixels,
            "tflops": self.speed.tflops,
            "peak_tflops": self.speed.peak,
            "share_of_peak": self.share,
            "host_memory_bytes": self.host_memory,
            "device_memory_bytes": self.device_memory,
            "psnr_y_to_f32_db": quality.to_f32,
            "psnr_y_to_hr_db": quality.to_hr,
            "decode_s": self.stages.decode,
            "infer_s": self.stages.infer,
            "encode_s": self.stages.encode,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A whole benchmark.

    Attributes:
        rows: at least one.
        machine, versions: where and with what it ran.
        command: what repeats it.
        date: when it began, UTC.
        picture: side of the square JPEG whose stages were timed, LR pixels.
        measured_on: what quality was measured on.
    """

    rows: tuple[Row, ...]
    machine: Machine
    versions: dict[str, str]
    command: str
    date: str
    picture: int
    measured_on: str

    @property
    def table(self) -> list[list[str]]:
        """HEADER and the cells of all rows."""
        return [list(HEADER), *(list(row.cells) for row in self.rows)]

    @property
    def method(self) -> str:
        """How it was measured, for people."""
        speed, start = self.rows[0].speed.latency, self.rows[0].start
        return (
            f"Tiles: {speed.repetitions} rounds in turns after a warm-up, median and 95th percentile; spread "
            "is highest less lowest, as a share of the median. TFLOP/s count direct convolution, two "
            "operations a multiply-add (a faster algorithm may pass 100%); the peak is a large matrix "
            f"product ({peak.SIDE}³) in the same precision and rounds. Start: to the first tile of a fresh "
            f"process, median of {start.repetitions}, with the highest peak of memory. PSNR: luma, shave = "
            f"scale, on {self.measured_on}. Stages: a JPEG of {self.picture}×{self.picture}, through "
            "tiles of this size or the smallest that the network's halo allows."
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
        rule = ["---"] * 2 + ["---:"] * (len(header) - 2)
        lines = [f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)]
        facts = [f"`{self.facts[0]}`", *self.facts[1:]]
        return "\n".join([*lines, "", self.method, "", *(f"- {fact}" for fact in facts)]) + "\n"


def _shown(value: float | None, digits: int, factor: float = 1.0) -> str:
    """A number for people; infinity, of equal pictures, as such."""
    if value is None:
        return NONE
    return "∞" if math.isinf(value) else f"{value * factor:.{digits}f}"


def _plain(value: str | float | None) -> str | float | None:
    return None if isinstance(value, float) and math.isinf(value) else value
