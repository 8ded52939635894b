"""Damaged pictures: mutants of small files of every format, which must be read or refused in words.

python benchmarks/fuzz_pictures.py                    # 2,000 a format; adds to results/reliability.{json,md}
python benchmarks/fuzz_pictures.py --only png --number 100 --seed 2

Each mutant is read in a process of its own, for at most 10 seconds, animations frame by frame, too. What can
be read is written as PNG and read again. Anything but pixels or an InputError is a fault: a crash, a hang,
another error, other pixels, or more memory than was given.
"""

import argparse
import random
import sys
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from common import RESULTS, Section, Table, machine, publish
from isolated import Ended, Worker
from mutants import ANIMATED, mutant, seeds
from srcli.errors import InputError
from srcli.io import pictures

LIMIT, MEMORY = 64 << 20, 256 << 20
"""Bytes of the pixels in memory, and of the decoder beside them."""
BOUND = LIMIT + MEMORY
FRAME = 4 * (1 << 27)
"""Bytes of the largest frame of an animation."""
_SECONDS, _ADDRESSES = 10.0, 12 << 30


def attempt(path: Path) -> str:
    """Read a file in every way: "read", "refused", or what is wrong."""
    try:
        for look in (pictures.probe, pictures.metadata_of, pictures.xmp_of):
            try:
                look(path)
            except InputError:
                continue
        if path.suffix in ANIMATED.values():
            _frames(path)
        try:
            picture = pictures.read(path, limit=LIMIT, memory=MEMORY, folder=path.parent)
        except InputError:
            return "refused"
        if picture.pixels.size > 1 << 24:
            return "read"
        copy = path.with_name("copy.png")
        pictures.write(copy, picture)
        again = pictures.read(copy).pixels
    except Exception as error:
        return f"{type(error).__name__}: {error}".replace(str(path), "")
    return "read" if np.array_equal(again, picture.pixels) else "the PNG differs"


def _frames(path: Path) -> None:
    """Read an animation as films are read."""
    from srcli.io.films import facts, reader

    with suppress(InputError):
        for _ in islice(reader.frames(facts.probe(path), on_error="skip", threads=1), 50):
            pass


def main(arguments: Sequence[str] | None = None) -> None:
    """Try and publish; exit code 1 where anything is wrong, with the mutants in the folder of the results."""
    given = sys.argv[1:] if arguments is None else arguments
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(seeds()), default=list(seeds()), help="formats")
    parser.add_argument("--number", type=int, default=2000, help="of mutants, a format")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="a folder for mutants at which something is wrong")
    parser.add_argument("--out", type=Path, default=RESULTS / "reliability.json")
    options = parser.parse_args(given)
    before, found = machine(), {}
    worker = Worker(attempt, _SECONDS, _ADDRESSES)
    with TemporaryDirectory() as folder:
        for name in options.only:
            found[name] = _tried(worker, name, options, Path(folder, f"x{ANIMATED.get(name, '.bin')}"))
            print(name, found[name], flush=True)
    worker.close()
    publish(options.out, section(found, options.number, options.seed), given, before)
    if any(one["faults"] for one in found.values()):
        sys.exit(1)


def _tried(worker: Worker, name: str, options: argparse.Namespace, path: Path) -> dict[str, Any]:
    fields, kinds = seeds()[name]
    wholes, counts, most, faults = [kind() for kind in kinds], Counter[str](), 0, Counter[str]()
    for number in range(options.number):
        blob = mutant(wholes[number % len(wholes)], fields, random.Random(f"{options.seed} {name} {number}"))
        path.write_bytes(blob)
        try:
            result, grown = worker(path)
        except Ended as ended:
            result, grown = str(ended), 0
        most = max(most, grown)
        bound = BOUND + FRAME * (name in ANIMATED)
        result = f"more memory than {bound >> 20} MiB" if grown > bound else result
        counts[result if result in ("read", "refused") else "faults"] += 1
        if result not in ("read", "refused"):
            faults[result] += 1
            if options.keep:
                options.keep.mkdir(parents=True, exist_ok=True)
                (options.keep / f"{name}-{number}{path.suffix}").write_bytes(blob)
    return {"counts": dict(counts), "most": most, "faults": dict(faults)}


def section(found: dict[str, dict[str, Any]], number: int, seed: int) -> Section:
    """The table by format."""
    rows = [
        (
            name,
            *(str(one["counts"].get(what, 0)) for what in ("read", "refused", "faults")),
            f"{one['most'] / 1e6:.0f} MB",
        )
        for name, one in found.items()
    ]
    method = (
        f"{number} mutants a format (seed {seed}) of small whole files: bits and runs of bytes changed, "
        "lengths set to extremes, pieces twice or missing, ends cut off; checksums of most PNGs mended. "
        f"Each was read in a process of its own with {LIMIT >> 20} MiB for pixels and {MEMORY >> 20} MiB for "
        f"the decoder, for at most {_SECONDS:.0f} s, animations frame by frame, too; what could be read was "
        "written as PNG and read again. Faults: a crash, a hang, an error but InputError, other pixels, or "
        f"growth by more than {BOUND >> 20} MiB and, of animations, a frame of at most {FRAME >> 20} MiB."
    )
    header = ("format", "read", "refused", "faults", "largest growth")
    return Section("mutants", "Damaged pictures", method, (Table(header, tuple(rows)),), found)


if __name__ == "__main__":
    main()
