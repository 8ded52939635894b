"""Networks as OpenVINO has compiled them, kept for the next run, which starts a tenth of a second sooner.

OpenVINO's own cache is not used: a damaged file of it computes something else, or ends the process. Here
every file is sealed with its checksum.
"""

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from srcli.backends.joined import join
from srcli.io import storage
from srcli.io.storage import cache_folder
from srcli.models.spec import METADATA_KEY, read_metadata

_SUFFIX = ".compiled"
_MADE = 1
"""To be raised where `compile_file` makes something else of the same file."""


def load(core: Any, path: Path, config: Mapping[str, Any], library: str) -> Any:
    """The network compiled for the CPU: found, or made and kept if it can be.

    Args:
        core: openvino.Core.
        path: an ONNX file.
        config: of the compilation.
        library: OpenVINO's version.

    Raises:
        ModelFileError: no ONNX file.
        RuntimeError: OpenVINO cannot load it.
    """
    key = _key(core, path, config, library)
    if key is None:
        return compile_file(core, path, config)
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    file = cache_folder("openvino") / f"{path.stem}-{digest}{_SUFFIX}"
    content = None
    with suppress(storage.StaleError):
        content = storage.read(file, key)
    if content is not None:
        with suppress(RuntimeError):  # it is compiled again
            return core.import_model(content, "CPU", dict(config))
    made = compile_file(core, path, config)
    with suppress(OSError, RuntimeError):  # a full disk, or a plug-in that exports nothing
        storage.write(file, key, made.export_model().getvalue())
        storage.forget_unused(file.parent, (_SUFFIX,))
    return made


def compile_file(core: Any, path: Path, config: Mapping[str, Any]) -> Any:
    """The network of an ONNX file compiled for the CPU, in float32 without what it holds for bf16.

    Args: as of `load`; the config says the precision.
    """
    network = core.read_model(path)
    if config["INFERENCE_PRECISION_HINT"] == "f32":
        join(network)
    return core.compile_model(network, "CPU", dict(config))


def _key(core: Any, path: Path, config: Mapping[str, Any], library: str) -> str | None:
    """Everything that matters to what is kept; None for files that do not say what their weights are.

    srcli's own hold them, or the checksum of the file they lie in, which was compared before.
    """
    if METADATA_KEY not in read_metadata(path):
        return None
    about = {
        "model": hashlib.sha256(path.read_bytes()).hexdigest(),
        "config": dict(config),
        "made": _MADE,
        "openvino": library,
        "cpu": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "able": sorted(core.get_property("CPU", "OPTIMIZATION_CAPABILITIES")),
    }
    return json.dumps(about, sort_keys=True)
