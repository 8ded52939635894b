"""What a precision costs: PSNR against the same model in fp32, and against the HR pictures."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from srcli.benchmark.attempts import Attempts
from srcli.benchmark.plan import Case
from srcli.imaging.metrics import psnr, psnr_y, to_y
from srcli.imaging.resize import downscale, modcrop
from srcli.upscaler import Upscaler

Pixels = NDArray[np.uint8]

_REFERENCE = Case("", "cpu", "fp32")
"""Stands for the fp32 output where it is none of what is measured."""


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the pictures, dB: luma, shave = scale.

    Attributes:
        to_f32: against the fp32 output, before rounding to 8 bits; infinite for equal ones, None for the
            one that is compared with, and where there is none.
        to_hr: against the HR pictures, rounded to 8 bits.
    """

    to_f32: float | None
    to_hr: float


def measure(
    upscalers: Mapping[Case, Upscaler],
    exact: Upscaler | None,
    pictures: Iterable[Pixels],
    scale: int,
    attempts: Attempts[Case],
) -> dict[Case, Quality]:
    """Upscale the bicubic LR image of each HR picture; those that fail are left out.

    Args:
        upscalers: what is measured.
        exact: the same model in fp32, one of `upscalers` or another; None: there is none.
        pictures: (H, W, 3) uint8 RGB, larger than 2 * scale a side; at least one.
        scale: of the model.
        attempts: keeps what fails.
    """
    scores: dict[Case, list[Quality]] = {case: [] for case in upscalers}
    own = next((case for case, upscaler in upscalers.items() if upscaler is exact), _REFERENCE)
    for picture in pictures:
        hr = modcrop(picture, scale)
        lr = downscale(hr, scale).astype(np.float32) / np.float32(255)
        reference = None if exact is None else attempts.of(own, partial(_enlarged, exact, lr))
        for case, upscaler in upscalers.items():
            sr = reference if case == own else attempts.of(case, partial(_enlarged, upscaler, lr))
            if sr is not None:
                scores[case].append(_score(sr, None if case == own else reference, hr, scale))
    return {case: _mean(values) for case, values in scores.items() if case not in attempts.problems}


def _enlarged(upscaler: Upscaler, lr: NDArray[Any]) -> NDArray[Any]:
    return upscaler(lr) * 255


def _score(sr: NDArray[Any], reference: NDArray[Any] | None, hr: Pixels, scale: int) -> Quality:
    to_f32 = None if reference is None else psnr(to_y(sr), to_y(reference), shave=scale)
    return Quality(to_f32, _to_hr(sr, hr, scale))


def _to_hr(sr: NDArray[Any], hr: Pixels, scale: int) -> float:
    return psnr_y(np.rint(sr).astype(np.uint8), hr, scale)


def _mean(values: list[Quality]) -> Quality:
    apart = [value.to_f32 for value in values if value.to_f32 is not None]
    to_hr = math.fsum(value.to_hr for value in values) / len(values)
    return Quality(sum(apart) / len(apart) if apart else None, to_hr)
