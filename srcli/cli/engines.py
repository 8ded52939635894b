"""`srcli export --format trt`: TensorRT engines built before anybody waits for them."""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from srcli.cli.console import product_path, talk
from srcli.cli.units import count
from srcli.errors import ModelNotFoundError

if TYPE_CHECKING:
    from srcli.models.spec import ModelSpec


def is_model(name: Path) -> bool:
    """Whether this is an ONNX file or the name of a model, rather than a checkpoint."""
    return name.suffix == ".onnx" or (not name.suffix and name.name == str(name) and not name.exists())


def is_known(model: str) -> bool:
    """Whether there is such a model."""
    from srcli.models.catalog import is_path, scales

    try:
        return bool(scales(Path(model) if is_path(model) else model))
    except ModelNotFoundError:
        return False


def check() -> None:
    """Refuse what cannot build here, before anything is exported for it.

    Raises:
        MissingExtraError, BackendUnavailableError: as `tensorrt.build_ahead`.
    """
    from srcli.backends.base import BackendOptions
    from srcli.backends.tensorrt.engine import found_ahead

    found_ahead(BackendOptions())


def of_model(model: str, folder: Path | None, precision: str) -> None:
    """Build the engine of every scale of a model, into the cache unless a folder is named.

    Args:
        model: name or path.
        folder: where to; None: the cache.
        precision: "auto", "fp32" or "fp16".

    Raises:
        ModelNotFoundError: no such model.
        MissingExtraError, BackendUnavailableError, InferenceError: as `tensorrt.build_ahead`.
    """
    from srcli.backends.tensorrt.store import folder_of_engines
    from srcli.models.catalog import is_path, resolve, scales

    name = Path(model) if is_path(model) else model
    files = [resolve(name, scale) for scale in scales(name)]
    build([(file.path, file.spec, precision) for file in files], folder or folder_of_engines())


def build(files: "Iterable[tuple[Path, ModelSpec, str]]", folder: Path) -> None:
    """Build the engine of each ONNX file, in a precision, for this machine's GPU, and say where it is."""
    from srcli.backends.base import BackendOptions
    from srcli.backends.tensorrt.engine import build_ahead

    made = [
        build_ahead(path, spec, BackendOptions(precision, tell=talk), folder)
        for path, spec, precision in files
    ]
    for path in made:
        product_path(path)
    talk(f"{count(len(made), 'engine')} ready; srcli upscale --backend trt finds them.")
