"""Which CUDA installed packages were built for, read from their files: importing them is slow, or fails."""

import re
from importlib.util import find_spec
from pathlib import Path

_WRITTEN = {
    "torch": ("torch", "version.py", "cuda"),
    "onnxruntime-gpu": ("onnxruntime", "capi/build_and_package_info.py", "cuda_version"),
}
"""By distribution: its module, and in which file which name holds the version."""


def cuda_of_packages() -> dict[str, str]:
    """CUDA version by distribution, e.g. {"torch": "13.0"}; those built for none, or that do not say, are not
    in it."""
    found = {name: _assigned(*where) for name, where in _WRITTEN.items()}
    return {name: version for name, version in found.items() if version}


def _assigned(module: str, file: str, name: str) -> str:
    """The version that a file of a module assigns to a name; empty if there is none."""
    spec = find_spec(module)
    if spec is None or spec.origin is None:
        return ""
    path = Path(spec.origin).parent / file
    text = path.read_text(errors="replace") if path.is_file() else ""
    match = re.search(rf"^{name}\b[^=\n]*=\s*['\"](\d+[\d.]*)", text, re.MULTILINE)
    return match.group(1) if match else ""
