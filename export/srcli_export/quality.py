"""What an exported file reaches on test sets, for its spec."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from srcli_export.runtime import Pixels, Runner, to_batch, to_pixels
from srcli_train.evaluate import Upscale, evaluate, mean

_DECIMALS = 3


def measure_quality(run: Runner, test_sets: Sequence[Path], scale: int) -> dict[str, float]:
    """PSNR in dB (Y, shave = scale, no ensemble, float32) by folder name.

    Args:
        run: the exported file.
        test_sets: folders of HR images.
        scale: of the file.

    Raises:
        TrainingError, InputError: a folder holds no images, or one that cannot be read.
    """

    def upscale(lr: Pixels) -> Pixels:
        return to_pixels(run(to_batch(np.ascontiguousarray(lr))))

    return {folder.name: round(_psnr(folder, scale, upscale), _DECIMALS) for folder in test_sets}


def _psnr(folder: Path, scale: int, upscale: Upscale) -> float:
    return mean(evaluate(folder, scale, {"": upscale}, lambda done, total: None)[""]).psnr_y
