"""From a model's name or path, and a scale, to a file and its spec.

Named models are the shipped ones and the user's: .onnx files in `user_folder()`, put there by
`srcli models import` or by hand. A shipped name cannot be taken by a user's file.
"""

import hashlib
import os
import re
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import lru_cache
from itertools import combinations_with_replacement
from math import prod
from pathlib import Path

from srcli.errors import ModelFileError, ModelNotFoundError
from srcli.models import foreign
from srcli.models.spec import (
    WEIGHTS_FILE_KEY,
    WEIGHTS_SHA256_KEY,
    ModelSpec,
    check_weights,
    read_metadata,
    read_spec,
    weights_of,
)

MODELS_FOLDER = Path(__file__).parent
"""Where the shipped networks lie, as <name>-x<scale>.onnx."""

FAMILIES = ("mdsr", "edsr")
"""Names that stand for the best shipped network of that family."""

USER_FOLDER_VARIABLE = "SRCLI_MODELS"
"""Environment variable that names the folder of the user's own models."""

_INT8 = ".int8.onnx"
_WEIGHTS = (".pt", ".pth", ".ckpt", ".safetensors")
"""Suffixes of weights, of which models are made."""
_FILE_NAME = re.compile(r"(?P<name>.+)-x(?P<scale>\d+)")


@dataclass(frozen=True, slots=True)
class ModelFile:
    """One network at one scale.

    Attributes:
        path: the ONNX file.
        spec: what is in it.
        note: what the user should know about how it was chosen; empty if it is just what they named.
        yours: whether it lies in the user's folder rather than among the shipped ones.
        int8: `<name>-x<scale>.int8.onnx` beside a named network, whose convolutions compute in 8-bit integers
            where they bear it; only if its weights are the same.
        full: of an int8 file, the one it belongs to.
    """

    path: Path
    spec: ModelSpec
    note: str = ""
    yours: bool = False
    int8: "ModelFile | None" = None
    full: "ModelFile | None" = None

    def at(self, precision: str) -> "ModelFile":
        """The file to load for a precision: of "int8" the int8 one, if there is one."""
        return self.int8 or self if precision == "int8" else self

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that decide the network: its own and, if it has one, that of its weights."""
        if self.path == Path():  # no file at all: bicubic
            return ()
        weights = weights_of(self.path)
        return (self.path,) if weights is None else (self.path, weights)

    @property
    def name(self) -> str:
        """Name of the network that was chosen, e.g. "mdsr-baseline" for "mdsr"."""
        return self.spec.name


def user_folder() -> Path:
    """Where the user's models lie: $SRCLI_MODELS, or srcli/models in $XDG_DATA_HOME or ~/.local/share."""
    if own := os.environ.get(USER_FOLDER_VARIABLE):
        return Path(own)
    if data := os.environ.get("XDG_DATA_HOME"):
        return Path(data) / "srcli" / "models"
    return Path(os.path.expanduser("~")) / ".local/share/srcli/models"  # noqa: PTH111 - never raises


def list_models(folder: Path | None = None) -> list[ModelSpec]:
    """Specs of all named networks, by name and scale: those of a folder, or the shipped and the user's.

    Raises:
        ModelFileError: a shipped file is damaged; damaged files of the user are left out.
    """
    return [file.spec for file in list_files(folder)]


def list_files(folder: Path | None = None) -> list[ModelFile]:
    """As `list_models`, with where each network lies and whether it is the user's."""
    files = _shipped(folder)
    if folder is None:
        files += _yours(files)[0]
    return sorted(files, key=lambda file: (file.name, file.spec.scale))


def problems() -> list[ModelFileError]:
    """What keeps files of the user's folder from being used."""
    return _yours(_shipped(None))[1]


def is_reserved(name: str) -> bool:
    """Whether a user's model cannot have this name: it is a shipped one's, or stands for something else."""
    return name in (*FAMILIES, "auto", "auto-fast", "bicubic") or any(
        file.name == name for file in _shipped(None)
    )


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
        model: the name of a shipped model or one of the user's, a family ("mdsr", "edsr": its best shipped
            network at that scale by PSNR on Set5), or the path of an ONNX file.
        scale: output / input.
        folder: where named models lie; default: the shipped ones and the user's.

    Raises:
        ModelNotFoundError: no such model, or it has no network at that scale.
        ModelFileError: the file is damaged, not what its .sha256 says, or not a super-resolution network.
    """
    files = [file for file in _candidates(model, folder) if file.spec.scale == scale]
    if not files:
        has = ", ".join(f"x{s}" for s in scales(model, folder))
        raise ModelNotFoundError(f"Model {str(model)!r} has no network for x{scale}.", f"It has {has}.")
    best = max(files, key=lambda file: (file.yours, _quality(file.spec), file.spec.parameters))
    best.spec.check_io(best.path)
    check_weights(best.path)
    check_sum_beside(best.path)
    by_family = str(model) in FAMILIES and best.name != str(model)
    note = f"{model}: {best.name} is the best shipped network of the family"
    best = replace(best, note=note) if by_family else best
    return best if is_path(model) else _with_int8(best)


def _with_int8(file: ModelFile) -> ModelFile:
    """A network with the int8 file beside it, if there is one of the same weights; a damaged one is told."""
    path = file.path.with_suffix(_INT8)
    if not path.is_file():
        return file
    try:
        spec, keys = read_spec(path), (WEIGHTS_FILE_KEY, WEIGHTS_SHA256_KEY)
        own, its = ([read_metadata(one).get(key) for key in keys] for one in (file.path, path))
        check_sum_beside(path)
    except ModelFileError as error:
        return replace(file, note="; ".join(filter(None, (file.note, f"left out: {error.message}"))))
    expected = ("int8", file.spec.scale, "float32")
    if spec is None or own != its or own[1] is None or (spec.arithmetic, spec.scale, spec.io) != expected:
        return file
    return replace(file, int8=replace(file, path=path, spec=replace(spec, name=file.name), full=file))


def is_path(model: str | Path) -> bool:
    """Whether this names a file rather than a model."""
    return isinstance(model, Path) or str(model).endswith(".onnx") or Path(model).name != str(model)


def _candidates(model: str | Path, folder: Path | None) -> list[ModelFile]:
    """Every file the name or path may mean, of any scale; at least one."""
    if Path(model).suffix.lower() in _WEIGHTS:
        raise ModelNotFoundError(
            f"{model} holds weights, not a model.",
            f"First: srcli export {model} (of srcli train), or srcli models import {model} (of others).",
        )
    if is_path(model):
        return [_from_path(Path(model))]
    files = list_files(folder)
    found = [file for file in files if file.name == model or model in _families(file)]
    if not found:
        for path in _user_paths() if folder is None else []:
            if model in (path.stem, _name_of(path)):
                _of_user(path, set())  # says what is wrong with it
        raise _not_found(str(model), [file.name for file in files])
    return [_checked_scale(file) for file in found]


def _families(file: ModelFile) -> tuple[str, ...]:
    """The family names that may mean this file: the user's files are chosen by their own names only."""
    return (file.spec.family,) if file.spec.family in FAMILIES and not file.yours else ()


def _shipped(folder: Path | None) -> list[ModelFile]:
    paths = (folder or MODELS_FOLDER).glob("*.onnx")
    return [ModelFile(path, _spec_of(path)) for path in sorted(paths) if _FILE_NAME.fullmatch(path.stem)]


def _spec_of(path: Path) -> ModelSpec:
    spec = read_spec(path)
    if spec is None:
        raise ModelFileError(f"{path}: a shipped model without a description.", "Install srcli again.")
    return spec


def _yours(shipped: list[ModelFile]) -> tuple[list[ModelFile], list[ModelFileError]]:
    """The user's files, and what is wrong with those that cannot be used: one bad file stops no other."""
    taken, files, bad = {file.name for file in shipped}, [], []
    try:
        paths = _user_paths()
    except ModelFileError as error:
        return [], [error]
    for path in paths:
        try:
            files.append(_of_user(path, taken))
        except ModelFileError as error:
            bad.append(error)
    return files, bad


def _user_paths() -> list[Path]:
    """The .onnx files in the user's folder; none if there is no folder.

    Raises:
        ModelFileError: the folder cannot be listed.
    """
    folder = user_folder()
    try:
        paths = {path for path in folder.iterdir() if path.suffix == ".onnx"}
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        hint = f"Check its permissions, or name another folder in {USER_FOLDER_VARIABLE}."
        raise ModelFileError(f"{folder}: cannot be listed ({error.strerror}).", hint) from error
    return sorted(paths - {path.with_suffix(_INT8) for path in paths})


def _of_user(path: Path, taken: set[str]) -> ModelFile:
    """A file of the user's folder under the name its file has.

    Raises:
        ModelFileError: it is damaged, has neither a description nor a scale in its name, or a name that
            is taken.
    """
    spec, named = read_spec(path), _FILE_NAME.fullmatch(path.stem)
    if _name_of(path) in taken:
        raise ModelFileError(f"{path}: has the name of a shipped model, which is used.", "Rename it.")
    if spec is not None:
        return ModelFile(path, replace(spec, name=_name_of(path)), yours=True)
    if named is None:
        hint = f"Call it {path.stem}-xN.onnx, where N is its scale, or give its path."
        raise ModelFileError(f"{path}: carries no description.", hint)
    return ModelFile(path, foreign.unknown(named["name"], int(named["scale"])), yours=True)


def _name_of(path: Path) -> str:
    named = _FILE_NAME.fullmatch(path.stem)
    return named["name"] if named else path.stem


def _from_path(path: Path) -> ModelFile:
    if not path.is_file():
        kind = "is a folder" if path.is_dir() else "does not exist"
        raise ModelNotFoundError(
            f"{path}: {kind}.", "Give the path of an .onnx file, or a shipped model's name."
        )
    return _described(path, path.stat().st_mtime_ns)


def _checked_scale(file: ModelFile) -> ModelFile:
    """The file; one of the user's without a description is run once to see what it really does."""
    if not file.yours or read_spec(file.path) is not None:
        return file
    found = _described(file.path, file.path.stat().st_mtime_ns)
    return replace(found, spec=replace(found.spec, name=file.name), yours=True)


@lru_cache(maxsize=16)
def _described(path: Path, modified: int) -> ModelFile:
    """The file with its spec; `modified` keeps a replaced file from being taken for the old one."""
    spec = read_spec(path)
    return ModelFile(path, spec) if spec else probe(path)


def probe(path: Path) -> ModelFile:
    """Find out what a foreign network does by running it on a small picture, on the CPU.

    Raises:
        ModelFileError: it does not turn one (1, 3, H, W) into (1, 3, sH, sW).
        MissingExtraError, BackendUnavailableError: no backend for the CPU is installed.
    """
    spec = foreign.describe(path)
    return ModelFile(path, spec, foreign.note(path, spec))


def _quality(spec: ModelSpec) -> float:
    return float(spec.quality.get("Set5", 0.0))


def _not_found(model: str, names: list[str]) -> ModelNotFoundError:
    known = sorted({*names, *FAMILIES}) if names else []
    near = get_close_matches(model, known, n=1, cutoff=0.5)
    if near:
        return ModelNotFoundError(f"No model {model!r}.", f"Did you mean {near[0]!r}?")
    listing = f"There are {', '.join(known)}" if known else "None are shipped with this copy"
    return ModelNotFoundError(f"No model {model!r}.", f"{listing}; or give the path of an .onnx file.")


def check_sum_beside(path: Path) -> None:
    """Compare a file with the SHA-256 in the .sha256 file beside it (hex, as `sha256sum` writes it), if any.

    Raises:
        ModelFileError: they differ, or one of them cannot be read.
    """
    if path.with_name(f"{path.name}.sha256").exists():
        _check_sum(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=16)
def _check_sum(path: Path, modified: int) -> None:
    try:
        wanted = path.with_name(f"{path.name}.sha256").read_text("ascii").split()
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: its checksum cannot be read ({error}).") from error
    if [word.lower() for word in wanted[:1]] != [found]:
        raise ModelFileError(f"{path}: is not what {path.name}.sha256 says.", "Copy or download it again.")


def scales_for(available: tuple[int, ...], factor: float) -> tuple[int, ...]:
    """Scales of one or two networks, whose product is the smallest that reaches `factor`, else the largest.

    The smaller of two runs first: that is less work, since the second sees fewer pixels.

    Raises:
        ModelNotFoundError: no network enlarges.
    """
    enlarging = sorted({scale for scale in available if scale > 1})
    if not enlarging:
        raise ModelNotFoundError("This model does not enlarge: it has only x1.", "Choose another one.")
    candidates = [(scale,) for scale in enlarging] + list(combinations_with_replacement(enlarging, 2))
    enough = [candidate for candidate in candidates if prod(candidate) >= factor]
    if enough:
        return min(enough, key=lambda candidate: (prod(candidate), len(candidate)))
    return max(candidates, key=prod)


def common_scales(models: tuple[str | Path, ...]) -> tuple[int, ...]:
    """Scales that all of these models have networks for, ascending.

    Raises:
        ModelNotFoundError: no such model.
        ModelFileError: the file at a path cannot be run.
    """
    return tuple(sorted(set.intersection(*(set(scales(model)) for model in models))))
