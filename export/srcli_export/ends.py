"""fp16 files whose input and output are bytes or halves, for programs that hold pixels in these."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

from srcli.backends.rewrite import IO, to_half
from srcli.errors import ExportError, UsageError
from srcli.models.spec import ModelSpec
from srcli_export.runtime import Pixels, Runner, to_batch, to_pixels
from srcli_export.storage import save, save_spec

ENDS = tuple(kind for kind in IO if kind != "float32")
"""What the two ends can be: "float16" (RGB 0-1) or "uint8" (RGB 0-255, rounded and clipped)."""

_BESIDE = 1e-4
"""Largest share of bytes that may differ, by one level; two in a million do, where a half is rounded."""
_HALF = 2.0**-11
"""What rounding to a half changes of a value from 1 to 2; an image is on 0-1, and a little outside."""


def check_ends(kinds: Sequence[str], precisions: Sequence[str]) -> None:
    """Refuse what no file can have at its ends.

    Raises:
        UsageError: one of the kinds is not among `ENDS`, or no fp16 file is made.
    """
    for kind in kinds:
        if kind not in ENDS:
            raise UsageError(f"No file has {kind!r} at its ends.", f"Choose from {', '.join(ENDS)}.")
    if kinds and "fp16" not in precisions:
        raise UsageError("Only fp16 files are made with other ends.", "Add fp16 to --precision.")


def write_ends(path: Path, spec: ModelSpec, images: Sequence[Pixels]) -> Path:
    """Write `<name>-x<scale>.fp16.<kind>.onnx` beside an fp16 file, and check that it gives the same pixels.

    Args:
        path: a finished file in halves, with float32 at its ends.
        spec: of the new file; its `io` is the kind, one of `ENDS`.
        images: (H, W, 3) uint8 LR images to compare the two on.

    Returns:
        The new file, which carries its weights.

    Raises:
        ExportError: it gives other pixels, or ONNX Runtime cannot run it.
        OutputError: it cannot be written.
    """
    target = path.with_name(f"{path.stem}.{spec.io}.onnx")
    save(target, to_half(onnx.load(path), spec.io).SerializeToString())
    save_spec(target, spec)
    problem = {"uint8": _bytes, "float16": _halves}[spec.io]
    plain, new = Runner(path), Runner(target)
    for said in filter(None, (problem(plain, new, image) for image in images)):
        raise ExportError(f"{target.name}: {said} from the file with float32 at its ends.")
    return target


def _bytes(plain: Runner, new: Runner, image: Pixels) -> str:
    """What is wrong with a file that takes and gives bytes; nothing if it is right."""
    result = new.raw(np.ascontiguousarray(image.transpose(2, 0, 1)[np.newaxis]))[0].transpose(1, 2, 0)
    steps = np.abs(result.astype(np.int16) - to_pixels(plain(to_batch(image))))
    share, most = float((steps > 0).mean()), int(steps.max())
    return f"{share:.4%} of its bytes differ by up to {most}" if share > _BESIDE or most > 1 else ""


def _halves(plain: Runner, new: Runner, image: Pixels) -> str:
    """The same of a file that takes and gives halves; both get an image rounded to these."""
    given = to_batch(image).astype(np.float16)
    away = np.abs(new.raw(given).astype(np.float32) - plain(given.astype(np.float32)))
    return f"its pixels are up to {away.max():.2g} away" if away.max() > _HALF else ""
