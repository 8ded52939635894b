"""What the export split for bf16 is one convolution in fp32, and stays split in bf16."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from engines import picture

from srcli.backends import compiled, libraries
from srcli.backends.joined import join
from srcli.models import catalog

MODELS = [
    *((name, scale, "fp32") for name in ("edsr-baseline", "mdsr-baseline") for scale in (2, 3, 4)),
    ("mdsr-photo", 2, "int8"),
]


def doubled(network: Any) -> list[str]:
    """Names of convolutions of whose channels a slice is taken."""
    slices = [op for op in network.get_ordered_ops() if op.get_type_name() == "Slice"]
    sources = [op.input_value(0).get_node() for op in slices if ".leading" in op.get_friendly_name()]
    return [source.get_friendly_name() for source in sources]


@pytest.mark.parametrize(("name", "scale", "arithmetic"), MODELS)
def test_shipped_networks_give_the_same_from_half_the_channels(
    name: str, scale: int, arithmetic: str
) -> None:
    core, path = libraries.openvino().Core(), catalog.resolve(name, scale).path
    path = path if arithmetic == "fp32" else path.with_suffix(f".{arithmetic}.onnx")
    split, joined = core.read_model(path), core.read_model(path)
    assert len(doubled(split)) == join(joined) == 5  # the picture, and its four borders
    assert not doubled(joined)
    assert join(joined) == 0
    hint = {"INFERENCE_PRECISION_HINT": "f32"}
    before, after = (core.compile_model(one, "CPU", hint)([picture(19, 30)])[0] for one in (split, joined))
    np.testing.assert_allclose(before, after, atol=2e-5, rtol=0)
    assert np.ptp(after) > 0.1


def test_a_network_without_them_stays_as_it_is() -> None:
    ops = pytest.importorskip("openvino").opset13
    given = ops.parameter([1, 2], np.float32)
    network = libraries.openvino().Model([ops.add(given, given)], [given])
    assert join(network) == 0


def test_the_same_names_in_another_network_mean_nothing() -> None:
    ops = pytest.importorskip("openvino").opset13
    given = ops.parameter([1, 2], np.float32)
    leading, rest = ops.relu(given), ops.relu(given)
    leading.set_friendly_name("body.leading")
    rest.set_friendly_name("body.rest")
    assert join(libraries.openvino().Model([ops.add(leading, rest)], [given])) == 0


@pytest.mark.parametrize(("hint", "split"), [("f32", 0), ("bf16", 5)])
def test_what_is_compiled(hint: str, split: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing computes: a CPU without bf16 refuses it."""

    class Core:
        def __init__(self) -> None:
            self.network: Any = None

        def __getattr__(self, name: str) -> Any:
            return getattr(real, name)

        def compile_model(self, network: Any, device: str, config: dict[str, Any]) -> Any:
            self.network = network
            return real.compile_model(network, device, {})

    monkeypatch.setenv("SRCLI_CACHE", str(tmp_path))
    real, core = libraries.openvino().Core(), Core()
    path = catalog.resolve("edsr-baseline", 2).path
    compiled.load(core, path, {"INFERENCE_PRECISION_HINT": hint}, "1.0")
    assert len(doubled(core.network)) == split
