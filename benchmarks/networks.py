"""The range of networks: work, speed and quality of each that srcli ships, and the usual small one of others.

Work is in multiply-adds of convolutions, a pixel of output.

python benchmarks/networks.py                       all of them, and a section of results/networks.json
python benchmarks/networks.py --only tiles          sides of tiles, by network and precision
pip install ncnn pnnx                               adds ncnn, from its wheel
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import pictures
from common import RESULTS, Section, Spread, Table, machine, publish, ratio, spread
from contenders import Contender, OneScale, Pixels, flops_per_pixel, ncnn_runs, openvino_runs
from srcli.backends.openvino import has_bf16, has_fast_int8, import_openvino
from srcli.benchmark.rounds import interleave, timed
from srcli.models import catalog
from srcli.upscaler import Upscaler

NETWORKS = ("mdsr-baseline", "edsr-baseline", "fast")
FOR = {
    "mdsr-baseline": "clean pictures, one file of weights for all scales",
    "edsr-baseline": "clean pictures, the network that papers compare with",
    "fast": "clean films on a CPU, previews",
}
"""What each is for; the networks for damaged pictures have the same work and speed."""
_SETS = ("Set5", "Set14")
_FRAME = 0.2304  # megapixels of 640x360
_PICTURE = 1.05  # megapixels of the square that tiles are cut from
_REFERENCE = "edsr-baseline"


class Compact(nn.Module):
    """The compact network that video tools use: 16 convolutions of 64 features with PReLU, then PixelShuffle,
    on top of the nearest pixel. Random weights, as only its speed is measured."""

    def __init__(self, scale: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, padding=1), nn.PReLU(64)]
        for _ in range(16):
            layers += [nn.Conv2d(64, 64, 3, padding=1), nn.PReLU(64)]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale))

    def forward(self, lr: Tensor, scale: int) -> Tensor:
        """(N, 3, H, W) -> (N, 3, scale*H, scale*W), at the scale that it was made for."""
        result: Tensor = self.body(lr) + nn.functional.interpolate(lr, scale_factor=float(scale))
        return result


@dataclass(frozen=True, slots=True)
class Subject:
    """A network in an engine, ready to run.

    Attributes:
        name: of the network.
        runs: the engine.
        work: multiply-adds a pixel of output.
        psnr: Y, dB, by test set.
        run: enlarges pictures.
    """

    name: str
    runs: str
    work: float
    psnr: dict[str, float]
    run: Contender


@dataclass(frozen=True, slots=True)
class Row:
    """One subject at one scale: MP/s of output, and how many times as fast as edsr-baseline if that ran."""

    name: str
    scale: int
    runs: str
    work: float
    megapixels: float
    faster: Spread | None
    psnr: dict[str, float]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and publish."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--only", choices=["range", "tiles"], nargs="+", default=["range", "tiles"])
    add("--scales", type=int, nargs="+", default=[2, 3, 4])
    add("--networks", nargs="+", default=list(NETWORKS))
    add("--tiles", type=int, nargs="+", default=[128, 192, 256, 384, 512])
    add("--frames", type=int, default=4)
    add("--megapixels", type=float, default=_FRAME, help="of each frame")
    add("--repetitions", type=int, default=3, help="rounds that count")
    add("--out", type=Path, default=RESULTS / "networks.json")
    options = parser.parse_args(given)
    for only in options.only:
        before = machine()
        publish(options.out, {"range": measure, "tiles": tiles}[only](options), given, before)


def _frames(options: argparse.Namespace) -> list[Pixels]:
    return [pictures.shaped(options.megapixels, 16 / 9, number) for number in range(options.frames)]


def measure(options: argparse.Namespace) -> Section:
    """All networks in turns at each scale."""
    rows = [row for scale in options.scales for row in _at(scale, options)]
    height, width = _frames(options)[0].shape[:2]
    return Section(
        "range",
        "The range of networks",
        f"{options.frames} frames of {width}×{height}, arrays of bytes in memory to arrays of bytes, "
        f"{options.repetitions} rounds in turns after one that warms up; srcli at its defaults. PSNR (Y) as "
        "the model's card has it for what runs. The compact network has 16 convolutions of 64 features and "
        "random weights; OpenVINO has benchmark_app's settings, ncnn its defaults.",
        (_table(rows),),
        {"rows": [asdict(row) for row in rows]},
    )


def _at(scale: int, options: argparse.Namespace) -> list[Row]:
    frames = _frames(options)
    megapixels = sum(frame[..., 0].size for frame in frames) * scale**2 / 1e6
    with TemporaryDirectory() as scratch:
        subjects = [*(_ours(name, scale) for name in options.networks), *_compact(scale, Path(scratch))]
        runs = {number: timed(partial(subject.run, frames)) for number, subject in enumerate(subjects)}
        seconds = list(interleave(runs, options.repetitions).values())
    by_name = {subject.name: taken for subject, taken in zip(subjects, seconds, strict=True)}
    reference = by_name.get(_REFERENCE)
    return [
        Row(
            one.name,
            scale,
            one.runs,
            one.work,
            megapixels / spread(taken).median,
            ratio(reference, taken) if reference else None,
            one.psnr,
        )
        for one, taken in zip(subjects, seconds, strict=True)
    ]


def _ours(name: str, scale: int) -> Subject:
    """A model of srcli's at its defaults."""
    upscaler = Upscaler(name, scale)
    spec, info = upscaler.spec, upscaler.info
    psnr = {one: float(spec.quality[one]) for one in _SETS if one in spec.quality}
    runs = f"srcli, {info.backend} {info.precision}"
    return Subject(spec.name, runs, spec.macs / scale**2, psnr, partial(_upscaled, upscaler))


def _upscaled(upscaler: Upscaler, frames: Sequence[Pixels]) -> list[Pixels]:
    return [upscaler(frame) for frame in frames]


def _compact(scale: int, scratch: Path) -> list[Subject]:
    """The compact network in OpenVINO and, where it is installed, ncnn."""
    network = OneScale(Compact(scale), scale).eval()
    path = scratch / "compact.onnx"
    sides = {2: torch.export.Dim("height", min=8), 3: torch.export.Dim("width", min=8)}
    example = torch.zeros(1, 3, 64, 64)
    torch.onnx.export(network, (example,), path, dynamic_shapes=(sides,), verbose=False)
    engines = {"OpenVINO": openvino_runs(path)}
    if find_spec("ncnn") and find_spec("pnnx"):
        engines["ncnn"] = ncnn_runs(network, scratch)
    work = flops_per_pixel(network.network, scale) / 2 / scale**2
    return [Subject("compact", engine, work, {}, run) for engine, run in engines.items()]


def _table(rows: Sequence[Row]) -> Table:
    work = "multiply-adds a pixel of output"
    header = ("network", "scale", "runs in", work, "MP/s", "to edsr-baseline", "Set5 / Set14, dB", "for")
    return Table(header, tuple(_cells(row) for row in rows))


def _cells(row: Row) -> tuple[str, ...]:
    """Multiply-adds in thousands, as `srcli models` shows them."""
    faster = row.faster
    return (
        row.name,
        f"x{row.scale}",
        row.runs,
        f"{row.work / 1000:,.0f} k",
        f"{row.megapixels:.2f}",
        f"{faster.median:.2f}× ({faster.lowest:.2f} – {faster.highest:.2f})" if faster else "–",
        " / ".join(f"{dB:.2f}" for dB in row.psnr.values()) or "–",
        FOR.get(row.name, "–"),
    )


def tiles(options: argparse.Namespace) -> Section:
    """Sides of tiles in turns, by network and precision, on one picture that takes several of the largest."""
    picture = pictures.shaped(_PICTURE, 1.0, 0)
    rows = list[tuple[str, ...]]()
    for name in options.networks:
        for precision in _precisions(name):
            runs = dict[int, Callable[[], float]]()
            for side in options.tiles:
                upscaler = Upscaler(name, 2, precision=precision, tile=side)
                runs[side] = timed(partial(_upscaled, upscaler, [picture]))
            seconds = interleave(runs, options.repetitions)
            rates = [
                4 * picture.shape[0] * picture.shape[1] / 1e6 / spread(s).median for s in seconds.values()
            ]
            rows.append((name, precision, *(f"{rate:.2f}" for rate in rates)))
    header = ("network", "precision", *map(str, options.tiles))
    return Section(
        "tiles",
        "Sides of tiles",
        f"MP/s at x2 of {picture.shape[1]}×{picture.shape[0]} pixels, by the side of the largest tile; "
        f"{options.repetitions} rounds in turns after one that warms up.",
        (Table(header, tuple(rows)),),
    )


def _precisions(name: str) -> tuple[str, ...]:
    """Those that "auto" may take for a network on a CPU, and fp32."""
    int8 = has_fast_int8() and catalog.resolve(name, 2).int8 is not None
    bf16 = has_bf16(import_openvino().Core())
    return (*(("int8",) if int8 else ()), *(("bf16",) if bf16 else ()), "fp32")


if __name__ == "__main__":
    main()
