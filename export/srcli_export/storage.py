"""Files appear complete under their names, or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from srcli.errors import OutputError
from srcli.models.spec import METADATA_KEY, ModelSpec


@contextmanager
def staging(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, on the same disk, gone afterwards whatever happens.

    Raises:
        OutputError: `folder` cannot be made or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        stage = tempfile.TemporaryDirectory(prefix=".srcli-export-", dir=folder)
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written to ({error.strerror}).") from error
    with stage as path:
        yield Path(path)


def save(path: Path, content: bytes) -> None:
    """Write a file of the staging folder through to the disk.

    Raises:
        OutputError: it cannot be written.
    """
    try:
        path.parent.mkdir(exist_ok=True)
        with path.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise OutputError(f"{path.parent}: cannot be written to ({error.strerror}).") from error


def save_spec(path: Path, spec: ModelSpec) -> None:
    """Write a spec into an ONNX file of the staging folder; its other metadata stay.

    Raises:
        OutputError: it cannot be written.
    """
    model = onnx.load(path, load_external_data=False)
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    onnx.helper.set_model_props(model, metadata | {METADATA_KEY: spec.to_json()})
    save(path, model.SerializeToString())


def publish(stage: Path, folder: Path) -> None:
    """Rename all files of `stage` into `folder`: shared weights first, then the graphs that need them.

    Raises:
        OutputError: a file cannot be put in its place.
    """
    for path in sorted(stage.iterdir(), key=lambda path: (path.suffix == ".onnx", path.name)):
        try:
            path.replace(folder / path.name)
        except OSError as error:
            raise OutputError(f"{folder / path.name}: cannot be replaced ({error.strerror}).") from error
