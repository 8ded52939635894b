"""`srcli train`: a folder of HR images becomes a checkpoint."""

from pathlib import Path
from typing import Annotated

import typer

from srcli.cli.extras import missing_extra


def train(
    folder: Annotated[Path, typer.Argument(help="Folder of HR images, or DIV2K in its official layout.")],
) -> None:
    """Train a network on a folder of HR images."""
    try:
        from srcli_train.command import train as run
    except ImportError as error:
        raise missing_extra(error, "Training", "train") from error
    run(folder)
