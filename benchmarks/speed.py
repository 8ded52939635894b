"""How fast srcli is: engines beside plain PyTorch, start-up, memory, and the tile's size.

python benchmarks/speed.py                     engines and start-up
python benchmarks/speed.py --only memory       a 12-megapixel picture at x4
python benchmarks/speed.py --only tiles        window sides from 256 to 1024
python benchmarks/speed.py --only streams      OpenVINO's streams against the tile's side
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import memory
import startup
import streams
import throughput
from common import RESULTS, Section, machine, publish

SECTIONS: dict[str, Callable[[argparse.Namespace], Section]] = {
    "throughput": throughput.measure,
    "startup": startup.measure,
    "memory": memory.measure,
    "tiles": memory.sweep,
    "streams": streams.measure,
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure the sections asked for and publish each as soon as it is there."""
    options, given = _parse(arguments)
    for name in options.only:
        before = machine()
        publish(options.out, SECTIONS[name](options), given, before)


def _parse(arguments: Sequence[str] | None) -> tuple[argparse.Namespace, Sequence[str]]:
    import sys

    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    add = parser.add_argument
    add("--only", nargs="+", choices=list(SECTIONS), default=["throughput", "startup"])
    add("--models", nargs="+", default=["mdsr-baseline", "edsr-baseline"], help="names or .onnx files")
    add("--scale", type=int, default=4)
    add("--sizes", nargs="+", type=int, default=[256, 512], help="sides of the square inputs")
    add("--repetitions", type=int, default=3, help="of each engine; one more round warms up")
    add("--starts", type=int, default=10, help="runs of each command of the start-up section")
    add("--sides", nargs="+", type=int, default=[64, 256], help="pictures of the start-up section")
    add("--checkpoint-mdsr", type=Path, help="eager weights; default: rebuilt from the ONNX file")
    add("--checkpoint-edsr", type=Path)
    add("--picture", nargs=2, type=int, default=[3000, 4000], metavar=("HEIGHT", "WIDTH"))
    add("--format", default="jpeg", help="of the output of the memory section")
    add("--tiles", nargs="+", type=int, default=[256, 384, 512, 768, 1024])
    add("--threads", type=int, default=0)
    add("--out", type=Path, default=RESULTS / "speed.json")
    return parser.parse_args(given), given


if __name__ == "__main__":
    main()
