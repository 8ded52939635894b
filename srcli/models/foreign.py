"""Networks of others, whose files say nothing of scale, range or sizes: one probe at load finds out."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from srcli.backends import registry
from srcli.backends.base import Batch, Described, Engine
from srcli.errors import ModelFileError, SrcliError
from srcli.models.spec import Feed, ModelSpec
from srcli.settings import Settings

UNKNOWN_HALO = 32
"""LR pixels of halo for a network that does not say how far it sees; more than trained ones use."""
_MULTIPLES = (1, 2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 56, 64, 128)
"""What sides are tried to be multiples of, and of nothing larger among these."""
_LEAST_SIDE = 17
_FEEDS = tuple(Feed(white, out_white) for white, out_white in ((1, 1), (255, 255), (1, 255), (255, 1)))
_CLOSE, _FAR = 0.03, 0.15
"""Mean difference (0-1) of a result, made small again, from the picture: of a network on 0-1, and of none."""
_HINT = "srcli runs networks that turn (N, 3, H, W) RGB 0-1 or 0-255 of any size into (N, 3, sH, sW)."


def unknown(name: str, scale: int) -> ModelSpec:
    """What can be said about a network of which only the scale is known."""
    return ModelSpec(name=name, family="other", scale=scale, exact_halo=UNKNOWN_HALO, halo=UNKNOWN_HALO)


def describe(path: Path) -> ModelSpec:
    """The spec of a network, found by running it on a small picture on the CPU.

    Raises:
        ModelFileError: it is of a kind that cannot be served; the message says what it takes or gives.
        MissingExtraError, BackendUnavailableError: no backend for the CPU is installed.
    """
    options = Settings(precision="fp32", device="cpu")  # a GPU's engine would be built for this alone
    spec = unknown(path.stem, 1)
    engine = registry.load(registry.choose("auto", options).name, path, spec, options)
    if isinstance(engine, Described):
        _check_inputs(path, engine)
    trial = _first_that_fits(path, engine)
    return replace(spec, scale=trial.scale, feed=replace(_feed(path, engine, trial), multiple=trial.multiple))


def note(path: Path, spec: ModelSpec) -> str:
    """What was found, in a line."""
    feed, more = spec.feed, ""
    if (feed.white, feed.out_white) != (1, 1):
        same = feed.white == feed.out_white
        more += f", takes 0-{feed.white:g}" + ("" if same else f" and gives 0-{feed.out_white:g}")
    more += f", sizes filled up to multiples of {feed.multiple}" * (feed.multiple > 1)
    return f"{path.name} carries no description: found x{spec.scale}{more}, halo assumed {spec.halo}"


def _check_inputs(path: Path, engine: Described) -> None:
    """Refuse a network that takes something else than one picture of any size."""
    inputs = engine.inputs
    if len(inputs) != 1:
        names = ", ".join(one.name for one in inputs)
        hint = "Export it with the others as constants."
        raise ModelFileError(f"{path}: takes {len(inputs)} inputs ({names}), srcli has one picture.", hint)
    dtype, shape = inputs[0].dtype, inputs[0].shape
    if dtype not in ("float32", "float16"):
        raise ModelFileError(f"{path}: takes {dtype} instead of float32 or float16.", _HINT)
    told = ", ".join("?" if side is None else str(side) for side in shape)
    if shape and (len(shape) != 4 or shape[1] not in (None, 3) or (shape[1] is None and shape[3] == 3)):
        raise ModelFileError(f"{path}: takes ({told}) instead of (N, 3, H, W).", _HINT)
    if any(side is not None for side in shape[2:]):
        hint = "Export it with a dynamic height and width."
        raise ModelFileError(f"{path}: takes ({told}), pictures of one size only.", hint)


@dataclass(frozen=True, slots=True)
class _Trial:
    """A picture that a network takes.

    Attributes:
        picture: (1, 3, H, W), 0-1.
        multiple: what its sides are multiples of.
        scale: output size / input size.
    """

    picture: Batch
    multiple: int
    scale: int


def _first_that_fits(path: Path, engine: Engine) -> _Trial:
    """The picture with the least multiple that the network enlarges by a whole number.

    Raises:
        ModelFileError: there is none; of the first is said what happened.
    """
    reason: ModelFileError | None = None
    for multiple in _MULTIPLES:
        picture = _picture(multiple)
        height, width = picture.shape[2:]
        try:
            shape: tuple[int, ...] = engine.run(picture).shape
        except (SrcliError, MemoryError) as error:
            text = f"{path}: fails on a {width}x{height} RGB picture ({error})."
            reason = reason or ModelFileError(text, _HINT)
            continue
        scale = shape[-1] // width
        if shape == (1, 3, height * scale, width * scale) and scale >= 1:
            return _Trial(picture, multiple, scale)
        reason = reason or ModelFileError(f"{path}: turns {picture.shape} into {shape}.", _HINT)
        if len(shape) != 4 or shape[1] != 3:
            break
    assert reason is not None
    raise reason


def _picture(multiple: int) -> Batch:
    """(1, 3, H, W), smooth colours; sides are different odd numbers times `multiple`."""
    times = -(-_LEAST_SIDE // multiple) | 1
    coarse = np.random.default_rng(0).uniform(0.1, 0.9, (4, 5, 3)).astype(np.float32)
    size = (times + 2) * multiple, times * multiple
    smooth = np.asarray(cv2.resize(coarse, size, interpolation=cv2.INTER_LINEAR))
    return np.ascontiguousarray(smooth.transpose(2, 0, 1)[None])


def _feed(path: Path, engine: Engine, trial: _Trial) -> Feed:
    """The range in which the network gives back the picture.

    A network on 0-1 that is given 0-255 may do well, too, but not the reverse: errors of one level are 1.
    """
    given = {white: engine.run(trial.picture * np.float32(white)) for white in (1.0, 255.0)}
    errors = [_error(given[feed.white] / feed.out_white, trial) for feed in _FEEDS]
    best = 0 if errors[0] <= _CLOSE else int(np.argmin(errors))
    if not errors[best] <= _FAR:
        text = f"{path}: what it gives is no enlarged picture, neither on 0-1 nor on 0-255."
        raise ModelFileError(text, _HINT)
    return _FEEDS[best]


def _error(sr: NDArray[Any], trial: _Trial) -> float:
    """Mean difference of the result, made small again, from the picture; infinite if it is no number."""
    _, channels, height, width = trial.picture.shape
    blocks = sr.astype(np.float64).reshape(channels, height, trial.scale, width, trial.scale)
    error = float(np.abs(blocks.mean(axis=(2, 4)) - trial.picture[0]).mean())
    return error if np.isfinite(error) else float("inf")
