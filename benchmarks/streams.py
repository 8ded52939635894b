"""How OpenVINO's streams, the tile's side and the halo trade against each other on this machine."""

import argparse
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from common import Section, Spread, Table, ratio, spread
from srcli.backends import libraries
from srcli.backends.compiled import compile_file
from srcli.backends.devices import cores
from srcli.backends.openvino import has_bf16, has_fast_int8
from srcli.benchmark.rounds import interleave, timed
from srcli.models import catalog
from srcli.models.catalog import ModelFile

_REQUESTS = 4  # tiles of one measurement


@dataclass(frozen=True, slots=True)
class Row:
    """One way to run tiles.

    Attributes:
        streams: tiles computed at once, each on its share of the cores.
        side: of the tile, LR pixels.
        megapixels: of output a second that end up in the picture: without the halos.
        kept: share of the computed pixels that do.
        to_default: rate over that of one stream with the largest tile, by rounds.
    """

    streams: int
    side: int
    megapixels: float
    kept: float
    to_default: Spread


def measure(options: argparse.Namespace) -> Section:
    """All streams and tiles in turns."""
    file = catalog.resolve(options.models[0], options.scale)
    file = file.at("int8") if has_fast_int8() else file
    shares = cores()
    cases = [(streams, side) for streams in (1, shares) for side in options.tiles]
    engines = {streams: _engine(file, streams) for streams in (1, shares)}
    runs = {case: timed(partial(engines[case[0]], _tiles(case[1]))) for case in cases}
    seconds = interleave(runs, options.repetitions, warmup=1)
    rows = [_row(file, case, seconds) for case in cases]
    return Section(
        "streams",
        f"Streams and tiles at x{options.scale}",
        f"{file.name} on OpenVINO, {_REQUESTS} tiles a run by asynchronous requests, "
        f"{options.repetitions} runs of each in turns after a warm-up; one stream has all cores, {shares} "
        f"streams have one each. Halos ({file.spec.halo} LR pixels a side) are computed and not counted.",
        (_table(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _engine(file: ModelFile, streams: int) -> Callable[[list[Any]], None]:
    """Runs tiles on so many streams."""
    library = libraries.openvino()
    core = library.Core()
    precision = "bf16" if has_bf16(core) else "f32"
    told = {"NUM_STREAMS": str(streams), "INFERENCE_PRECISION_HINT": precision}
    queue = library.AsyncInferQueue(compile_file(core, file.path, told), streams)

    def run(tiles: list[Any]) -> None:
        for tile in tiles:
            queue.start_async([tile])
        queue.wait_all()

    return run


def _tiles(side: int) -> list[Any]:
    return list(np.random.default_rng(side).random((_REQUESTS, 1, 3, side, side), np.float32))


def _row(file: ModelFile, case: tuple[int, int], seconds: dict[tuple[int, int], list[float]]) -> Row:
    streams, side = case
    core = _core(file, side)
    kept = core**2 / side**2
    default = max(other for other in seconds if other[0] == 1)
    work = core**2 * file.spec.scale**2 * _REQUESTS / 1e6
    rates = {key: [_core(file, key[1]) ** 2 / s for s in taken] for key, taken in seconds.items()}
    return Row(streams, side, work / spread(seconds[case]).median, kept, ratio(rates[case], rates[default]))


def _core(file: ModelFile, side: int) -> int:
    return max(0, side - 2 * file.spec.halo)


def _table(rows: list[Row]) -> Table:
    header = ("streams", "tile", "MP/s kept", "kept of computed", "to one stream, largest tile", "range")
    return Table(
        header,
        tuple(
            (
                str(row.streams),
                str(row.side),
                f"{row.megapixels:.2f}",
                f"{row.kept:.0%}",
                f"{row.to_default.median:.2f}",
                f"{row.to_default.lowest:.2f} – {row.to_default.highest:.2f}",
            )
            for row in rows
        ),
    )
