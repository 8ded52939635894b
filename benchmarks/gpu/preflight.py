"""Is everything there that prove.sh or measure.sh needs? If not: what is missing, and what brings it.

    python benchmarks/gpu/preflight.py prove|measure

OpenCV has to know what srcli calls: 4.12 was the first to write pictures with their metadata, and users are
asked for 5.0. It is not asked for its version but tried: a small JPEG and a PNG go out and in.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).parents[2]))

_SHARED = {
    "numpy": "numpy>=1.26",
    "cv2": "opencv-python-headless>=5.0",
    "simplejpeg": "simplejpeg>=1.8",
    "typer": "typer>=0.15",
    "rich": "rich>=13.9",
    "onnx": "onnx>=1.18",
    "torch": "torch>=2.9",
}
NEEDED = {
    "prove": _SHARED | {"pytest": "pytest>=8.3", "hypothesis": "hypothesis>=6.120"},
    "measure": _SHARED | {"onnxruntime": "onnxruntime-gpu>=1.22", "matplotlib": "matplotlib>=3.9"},
}
"""By script: modules, and the packages that bring them, in the versions of pyproject.toml."""

_OPENCV = ("imencodeWithMetadata", "IMAGE_METADATA_EXIF", "IMWRITE_PNG_FILTER_PAETH", "IMWRITE_AVIF_SPEED")
"""The youngest names that srcli calls OpenCV by."""


def main(arguments: Sequence[str]) -> int:
    """Look; 0 if nothing is missing."""
    needed = NEEDED[arguments[0]]
    wrong = missing(needed)
    for module, reason in wrong.items():
        print(f"missing: {module}: {reason}", file=sys.stderr)
    if wrong:
        print(advice([needed[module] for module in wrong]), file=sys.stderr)
    return 2 if wrong else 0


def missing(modules: Sequence[str] | dict[str, str]) -> dict[str, str]:
    """Modules that cannot be imported, or cannot do what srcli asks of them, each with the reason."""
    found = {module: _problem(module) for module in modules}
    if not any(found.get(module) for module in ("numpy", "cv2", "simplejpeg")):
        found["cv2"] = _pictures()
    return {module: reason for module, reason in found.items() if reason}


def _problem(module: str) -> str:
    try:
        imported = import_module(module)
    except Exception as error:  # a broken installation can fail in any way
        return f"{type(error).__name__}: {error}"
    lacking = [name for name in _OPENCV if not hasattr(imported, name)] if module == "cv2" else []
    return f"version {imported.__version__} has no {', '.join(lacking)}" if lacking else ""


def _pictures() -> str:
    """Why a picture does not come back from a file; empty: it does."""
    try:
        import numpy as np

        from srcli.io import pictures

        with TemporaryDirectory() as folder:
            for path in (Path(folder, "a.jpg"), Path(folder, "a.png")):
                pictures.write(path, pictures.Picture(np.full((16, 16, 3), 99, np.uint8)))
                pictures.read(path)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def advice(packages: Sequence[str]) -> str:
    """How they come onto a machine without a package index; for Linux on x86-64 and this Python."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    platforms = " ".join(f"--platform manylinux_2_{n}_x86_64" for n in (28, 27, 24, 17))
    quoted = " ".join(f"'{package}'" for package in packages)
    return (
        "Fetch the wheels where there is a package index, and unpack them onto PYTHONPATH here:\n"
        "  python3 -m pip download --no-deps --only-binary=:all: --implementation cp "
        f"--python-version {version} {platforms} --platform manylinux2014_x86_64 -d wheels {quoted}\n"
        '  for wheel in wheels/*.whl; do python3 -m zipfile -e "$wheel" site; done\n'
        '  export PYTHONPATH="$PWD/site${PYTHONPATH:+:$PYTHONPATH}"'
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
