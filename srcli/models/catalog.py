"""From a model's name or path, and a scale, to a file and its spec."""

import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path

import numpy as np

from srcli.backends import table
from srcli.backends.base import BackendOptions
from srcli.errors import ModelFileError, ModelNotFoundError, SrcliError
from srcli.spec import ModelSpec, check_weights, read_spec

MODELS_FOLDER = Path(__file__).parent
"""Where the shipped networks lie, as <name>-x<scale>.onnx."""

FAMILIES = ("mdsr", "edsr")
"""Names that stand for the best shipped network of that family."""

UNKNOWN_HALO = 32
"""LR pixels of halo for a network that does not say how far it sees; more than trained ones use."""

_PROBE = 16
_FILE_NAME = re.compile(r"(?P<name>.+)-x(?P<scale>\d+)")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One network at one scale.

    Attributes:
        path: the ONNX file.
        spec: what is in it.
        note: what the user should know about how it was chosen; empty if it is just what they named.
    """

    path: Path
    spec: ModelSpec
    note: str = ""

    @property
    def name(self) -> str:
        """Name of the network that was chosen, e.g. "mdsr-baseline" for "mdsr"."""
        return self.spec.name


def list_models(folder: Path | None = None) -> list[ModelSpec]:
    """Specs of all shipped networks, by name and scale.

    Raises:
        ModelFileError: a file in the folder is damaged.
    """
    return [file.spec for file in _files(folder)]


def scales(model: str | Path, folder: Path | None = None) -> tuple[int, ...]:
    """The scales a model has networks for, ascending.

    Raises:
        ModelNotFoundError: no such model.
        ModelFileError: the file at this path cannot be run.
    """
    return tuple(sorted({file.spec.scale for file in _candidates(model, folder)}))


def resolve(model: str | Path, scale: int, folder: Path | None = None) -> ModelFile:
    """The network of a model at a scale.

    Args:
        model: a shipped name, a family ("mdsr", "edsr": its best network at that scale by PSNR on Set5),
            or the path of an ONNX file.
        scale: output / input.
        folder: where named models lie; default: the shipped ones.

    Raises:
        ModelNotFoundError: no such model, or it has no network at that scale.
        ModelFileError: the file is damaged or not a super-resolution network.
    """
    files = [file for file in _candidates(model, folder) if file.spec.scale == scale]
    if not files:
        has = ", ".join(f"x{s}" for s in scales(model, folder))
        raise ModelNotFoundError(f"Model {str(model)!r} has no network for x{scale}.", f"It has {has}.")
    best = max(files, key=lambda file: (_quality(file.spec), file.spec.parameters, file.name))
    check_weights(best.path)
    if str(model) in FAMILIES and best.name != str(model):
        return replace(
            best, note=f"{model}: {best.name} is the best shipped network of the family at x{scale}"
        )
    return best


def is_path(model: str | Path) -> bool:
    """Whether this names a file rather than a shipped model."""
    return isinstance(model, Path) or str(model).endswith(".onnx") or Path(model).name != str(model)


def _candidates(model: str | Path, folder: Path | None) -> list[ModelFile]:
    """Every file the name or path may mean, of any scale; at least one."""
    if is_path(model):
        return [_from_path(Path(model))]
    files = _files(folder)
    found = [file for file in files if model in ((file.spec.family,) if model in FAMILIES else (file.name,))]
    if not found:
        raise _not_found(str(model), [file.name for file in files])
    return found


def _files(folder: Path | None) -> list[ModelFile]:
    paths = sorted((folder or MODELS_FOLDER).glob("*.onnx"))
    files = [ModelFile(path, _spec_of(path)) for path in paths if _FILE_NAME.fullmatch(path.stem)]
    return sorted(files, key=lambda file: (file.name, file.spec.scale))


def _spec_of(path: Path) -> ModelSpec:
    spec = read_spec(path)
    if spec is None:
        raise ModelFileError(f"{path}: a shipped model without a description.", "Install srcli again.")
    return spec


def _from_path(path: Path) -> ModelFile:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ModelNotFoundError(
            f"{path}: {kind}.", "Give the path of an .onnx file, or a shipped model's name."
        )
    return _described(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _described(path: Path, modified: int) -> ModelFile:
    """The file with its spec; `modified` keeps a replaced file from being taken for the old one."""
    spec = read_spec(path)
    return ModelFile(path, spec) if spec else probe(path)


def probe(path: Path) -> ModelFile:
    """Find out what a foreign network does by running it once on a small black picture.

    Raises:
        ModelFileError: it does not turn (1, 3, H, W) into (1, 3, sH, sW).
        MissingExtraError: no backend is installed.
    """
    options = BackendOptions(precision="f32")
    spec = ModelSpec(name=path.stem, family="other", scale=1, exact_halo=UNKNOWN_HALO, halo=UNKNOWN_HALO)
    hint = "srcli runs networks that turn (N, 3, H, W) RGB 0-1 of any size into (N, 3, sH, sW)."
    engine = table.load(table.choose("auto", options).name, path, spec, options)
    try:
        shape = engine.run(np.zeros((1, 3, _PROBE, _PROBE), np.float32)).shape
    except (SrcliError, MemoryError) as error:
        raise ModelFileError(f"{path}: fails on a {_PROBE}x{_PROBE} RGB picture ({error}).", hint) from error
    scale = shape[-1] // _PROBE
    if shape != (1, 3, _PROBE * scale, _PROBE * scale) or scale < 1:
        raise ModelFileError(f"{path}: turns (1, 3, {_PROBE}, {_PROBE}) into {shape}.", hint)
    note = f"{path.name} carries no description: found x{scale}, halo assumed {UNKNOWN_HALO}"
    return ModelFile(path, replace(spec, scale=scale), note)


def _quality(spec: ModelSpec) -> float:
    return float(spec.quality.get("Set5", 0.0))


def _not_found(model: str, names: list[str]) -> ModelNotFoundError:
    known = sorted({*names, *FAMILIES}) if names else []
    near = get_close_matches(model, known, n=1, cutoff=0.5)
    if near:
        return ModelNotFoundError(f"No model {model!r}.", f"Did you mean {near[0]!r}?")
    listing = f"There are {', '.join(known)}" if known else "None are shipped with this copy"
    return ModelNotFoundError(f"No model {model!r}.", f"{listing}; or give the path of an .onnx file.")
