"""Files and folders in checked pieces, for machines that take and give only so much at a time.

    python -m srcli_train.parcels split runs/mdsr parcels/ --mib 15
    python -m srcli_train.parcels split runs/mdsr more/ --mib 15 --from 4 --count 4
    python -m srcli_train.parcels join parcels/ runs/

A folder becomes one tar stream, cut into pieces that are named by number and listed with their SHA-256.
Pieces may arrive in any order and in several transfers, a range of them in each, as long as the folder does
not change meanwhile; the list goes with each. Joining starts when all of them are there.
"""

import argparse
import hashlib
import json
import sys
import tarfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import BinaryIO

from srcli.errors import InputError, OutputError, SrcliError, UsageError

_LIST = "parcel.json"
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Piece:
    """One part of the stream: file name, bytes, SHA-256 in hexadecimal."""

    name: str
    size: int
    sha256: str


def split(source: Path, out: Path, size: int, wanted: range | None = None) -> list[Piece]:
    """Cut a file or folder into pieces of at most `size` bytes, and list them in parcel.json.

    Args:
        source: what is cut; the same pieces come out as long as it is the same.
        out: folder for them.
        size: of the largest.
        wanted: numbers of the pieces to write; None: all.

    Returns:
        All pieces, also those that were not wanted.

    Raises:
        InputError: there is no such source.
        OutputError: the pieces cannot be written.
    """
    if not source.exists():
        raise InputError(f"{source}: no such file or folder.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=out) as stream:
            with tarfile.open(fileobj=stream, mode="w") as tar:
                tar.add(source, source.resolve().name)
            stream.seek(0)
            pieces = _cut(stream, out, size, wanted)
        (out / _LIST).write_text(json.dumps([asdict(piece) for piece in pieces], indent=1))
    except OSError as error:
        raise OutputError(f"{out}: the pieces cannot be written ({error.strerror}).") from error
    return pieces


def _cut(stream: BinaryIO, out: Path, size: int, wanted: range | None) -> list[Piece]:
    pieces = list[Piece]()
    while data := stream.read(size):
        name = f"parcel-{len(pieces):03}"
        if wanted is None or len(pieces) in wanted:
            (out / name).write_bytes(data)
        pieces.append(Piece(name, len(data), hashlib.sha256(data).hexdigest()))
    return pieces


def join(parcels: Path, out: Path) -> Path:
    """Check the pieces, put them together and unpack them into `out`.

    Returns:
        The file or folder that was split; one of that name in `out` is replaced.

    Raises:
        InputError: pieces are missing or damaged; all of them are named, and nothing is unpacked.
        OutputError: it cannot be unpacked.
    """
    pieces = _listed(parcels)
    wrong = [piece.name for piece in pieces if not _is_whole(parcels / piece.name, piece)]
    if wrong:
        raise InputError(f"{parcels}: missing or damaged: {', '.join(wrong)}.", "Bring these pieces again.")
    try:
        out.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=out) as scratch:
            top = _unpack(parcels, pieces, Path(scratch))
            return _put(top, out / top.name)
    except (OSError, tarfile.TarError) as error:
        raise OutputError(f"{out}: the pieces cannot be unpacked ({error}).") from error


def _listed(parcels: Path) -> list[Piece]:
    try:
        return [Piece(**entry) for entry in json.loads((parcels / _LIST).read_text())]
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{parcels}: holds no {_LIST} that can be read.", "Bring it again.") from error


def _is_whole(path: Path, piece: Piece) -> bool:
    return path.is_file() and hashlib.sha256(path.read_bytes()).hexdigest() == piece.sha256


def _unpack(parcels: Path, pieces: list[Piece], scratch: Path) -> Path:
    """The single file or folder of the stream, in `scratch`."""
    with TemporaryFile(dir=scratch.parent) as stream:
        for piece in pieces:
            stream.write((parcels / piece.name).read_bytes())
        stream.seek(0)
        with tarfile.open(fileobj=stream, mode="r") as tar:
            if hasattr(tarfile, "data_filter"):  # Python 3.11.4
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(scratch)
    return next(scratch.iterdir())


def _put(top: Path, target: Path) -> Path:
    """Move into place; what was there goes only once the new one is there."""
    with TemporaryDirectory(dir=target.parent) as old:
        before = Path(old) / target.name
        if target.exists():
            target.replace(before)
        try:
            top.replace(target)
        except OSError:
            if before.exists():
                before.replace(target)
            raise
    return target


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `split` or `join`; returns the exit code."""
    options = _parse(arguments)
    try:
        if options.mib <= 0 or options.first < 0 or (options.count is not None and options.count < 1):
            raise UsageError("--mib is a number above 0, --from starts at 0 and --count at 1.")
        print(_split(options) if options.action == "split" else join(options.source, options.out))
    except SrcliError as error:
        print(f"error: {error.message}\n  {error.hint}".rstrip(), file=sys.stderr)
        return error.exit_code
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        "python -m srcli_train.parcels", description=__doc__, formatter_class=about
    )
    parser.add_argument("action", choices=("split", "join"))
    parser.add_argument("source", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--mib", type=float, default=15, help="largest piece")
    parser.add_argument("--from", dest="first", type=int, default=0, metavar="N", help="first piece to write")
    parser.add_argument("--count", type=int, metavar="N", help="pieces to write [default: all that are left]")
    return parser.parse_args(arguments)


def _split(options: argparse.Namespace) -> str:
    """Write the range that is asked for; returns what there is to say."""
    first = options.first
    end = sys.maxsize if options.count is None else first + options.count
    pieces = split(options.source, options.out, int(options.mib * _BLOCK), range(first, end))
    total, written = len(pieces), len(range(first, min(end, len(pieces))))
    rest = f"; {total - end} are left: --from {end}" if end < total else ""
    return f"{written} of {total} pieces in {options.out}{rest}"


if __name__ == "__main__":
    sys.exit(main())
