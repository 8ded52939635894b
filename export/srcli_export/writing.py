"""Chains of layers -> fp32 and int8 files, one a scale; those of several scales share their weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from srcli.models.spec import ModelSpec
from srcli_export.external import fingerprint, share
from srcli_export.graph import Steps, build_model, embedded, stored_weights
from srcli_export.layers import Chain
from srcli_export.storage import save
from srcli_train.networks.layers import MEAN_RGB


def file_name(name: str, scale: int, arithmetic: str) -> str:
    """`<name>-x<scale>.onnx`, and with `.fp16` or `.int8` before the suffix for these."""
    return f"{name}-x{scale}.onnx" if arithmetic == "fp32" else f"{name}-x{scale}.{arithmetic}.onnx"


def write_chains(
    layers: Mapping[int, Chain],
    specs: Mapping[int, ModelSpec],
    folder: Path,
    weights: str = "fp32",
    mean: Sequence[float] = MEAN_RGB,
    int8: Mapping[int, Mapping[str, Steps]] | None = None,
) -> dict[int, Path]:
    """Write the files of all scales; weights of more than one lie in `<name>.weights` beside them.

    Args:
        layers: the network of each scale between the two halves of the mean shift.
        specs: of one network at the scales to write; stored in the files.
        folder: a staging folder.
        weights: how they are stored: "fp32" or "fp16".
        mean: the colour that the mean shift subtracts and adds, on 0-1.
        int8: convolutions that compute in 8-bit integers, by scale and name.

    Returns:
        The files by scale.

    Raises:
        OutputError: one cannot be written.
    """
    name = next(iter(specs.values())).name
    stored = {scale: stored_weights(layers[scale], weights) for scale in specs}
    together = {key: values for tensors in stored.values() for key, values in tensors.items()}
    shared = share(f"{name}.weights", together) if len(stored) > 1 else None
    if shared:
        save(folder / shared.location, shared.content)
    paths = {scale: folder / file_name(name, scale, spec.arithmetic) for scale, spec in specs.items()}
    for scale, path in paths.items():
        tensors = shared.initializers(stored[scale]) if shared else embedded(stored[scale])
        metadata = shared.metadata if shared else fingerprint(stored[scale])
        model = build_model(layers[scale], tensors, specs[scale], metadata, mean, (int8 or {}).get(scale))
        save(path, model.SerializeToString())
    return paths
