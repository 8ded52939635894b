"""srcli: super-resolution with EDSR and MDSR.

    >>> from srcli import Upscaler
    >>> large = Upscaler("mdsr", scale=4)(image)  # (H, W, 3) uint8 RGB -> (4H, 4W, 3)

The names below load on first use, so that `import srcli` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from srcli.errors import SrcliError
    from srcli.models.catalog import list_models
    from srcli.models.spec import ModelSpec
    from srcli.upscaler import Upscaler

__version__ = "0.1.0"
__all__ = ["ModelSpec", "SrcliError", "Upscaler", "__version__", "list_models"]

_HOMES = {
    "Upscaler": "srcli.upscaler",
    "ModelSpec": "srcli.models.spec",
    "SrcliError": "srcli.errors",
    "list_models": "srcli.models.catalog",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module 'srcli' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
