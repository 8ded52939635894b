"""`srcli evaluate`: PSNR and SSIM of a model on a folder of HR images."""

from pathlib import Path
from typing import Annotated

import typer

from srcli.cli.extras import missing_extra


def evaluate(
    folder: Annotated[Path, typer.Argument(help="Folder of HR images.")],
) -> None:
    """Measure PSNR and SSIM on a folder of HR images."""
    try:
        from srcli_train.command import evaluate as run
    except ImportError as error:
        raise missing_extra(error, "Evaluation", "train") from error
    run(folder)
