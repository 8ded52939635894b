"""Networks of other architectures, through spandrel: a stand-in for it, and itself where it is installed."""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import torch.nn.functional as F
from tiny_exports import photo_batch
from torch import Tensor, nn

from srcli.errors import ModelFileError
from srcli_export.calibration import charts
from srcli_export.importing import Request, import_weights, importer
from srcli_export.importing.spandrel import ForeignNetwork, check_position, measure_radius
from srcli_export.runtime import Runner

FLOAT32 = 1e-5


class Plain(nn.Module):
    """Two convolutions around a doubling by nearest neighbours; works in place on its input, as some do."""

    def __init__(self, side: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, side, padding=side // 2)
        self.last = nn.Conv2d(8, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x -= 0.5
        x = F.leaky_relu(self.first(x), 0.2)
        out: Tensor = self.last(F.interpolate(x, scale_factor=2, mode="nearest"))
        return out


class Global(Plain):
    """Knows the mean of the whole picture, as channel attention does."""

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = super().forward(x * (1 + x.mean(dim=(2, 3), keepdim=True)))
        return out


class Windows(Plain):
    """Looks at the first column of each window of eight, as window attention does."""

    def forward(self, x: Tensor) -> Tensor:
        columns = torch.arange(x.shape[3])
        out: Tensor = super().forward(x + x[:, :, :, columns - columns % 8])
        return out


@dataclass
class Descriptor:
    """What spandrel says about a network, as far as srcli reads it."""

    model: nn.Module
    scale: int = 2
    input_channels: int = 3
    output_channels: int = 3
    minimum: int = 0
    multiple_of: int = 1
    square: bool = False
    brighter: float = 0.0
    architecture: Any = field(default_factory=lambda: SimpleNamespace(name="Standin"))

    @property
    def size_requirements(self) -> Any:
        return SimpleNamespace(minimum=self.minimum, multiple_of=self.multiple_of, square=self.square)

    def float(self) -> "Descriptor":
        return self

    def eval(self) -> "Descriptor":
        self.model.eval()
        return self

    def __call__(self, image: Tensor) -> Tensor:
        out: Tensor = self.model(image)
        return (out + self.brighter).clamp(0, 1)


def install(monkeypatch: pytest.MonkeyPatch, result: Descriptor | Exception) -> None:
    """A module called spandrel whose loader gives, or raises, the result."""

    class Loader:
        def load_from_state_dict(self, state: object) -> Descriptor:
            if isinstance(result, Exception):
                raise result
            return result

    module = ModuleType("spandrel")
    module.__dict__.update(ModelLoader=Loader, UnsupportedModelError=KeyError)
    monkeypatch.setitem(sys.modules, "spandrel", module)
    monkeypatch.setattr(importer.images, "charts", lambda side=96: [charts(side)[0]])


def state(folder: Path) -> Path:
    torch.save(Plain().state_dict(), folder / "net.pth")
    return folder / "net.pth"


def test_a_foreign_network_runs_as_in_pytorch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of any size and batch, smaller than it can take by itself, too: then rows and columns are repeated."""
    install(monkeypatch, Descriptor(Plain(), minimum=6))
    (file,) = import_weights(Request(state(tmp_path), "foreign", "MIT"))
    run, network = Runner(file.path), Plain().eval()
    rng = np.random.default_rng(0)
    for batch in (photo_batch(), rng.random((2, 3, 7, 12), np.float32)):
        with torch.inference_mode():
            want = network(torch.from_numpy(batch.copy())).numpy()
        np.testing.assert_allclose(run(batch), want, atol=FLOAT32, rtol=0)
    small = rng.random((1, 3, 2, 1), np.float32)
    with torch.inference_mode():
        want = network(torch.from_numpy(np.pad(small, ((0, 0), (0, 0), (0, 4), (0, 5)), "edge")))
    np.testing.assert_allclose(run(small), want[:, :, :4, :2].numpy(), atol=FLOAT32, rtol=0)
    assert (file.spec.family, file.spec.scale, file.spec.exact_halo) == ("other", 2, 2)
    assert file.spec.parameters == sum(p.numel() for p in network.parameters())
    model = onnx.load(file.path)
    onnx.checker.check_model(model, full_check=True)
    assert model.opset_import[0].version == 20
    text = file.path.read_bytes()
    assert b".py" not in text  # no stack traces
    assert str(tmp_path).encode() not in text
    _check_openvino(file.path, photo_batch())


def _check_openvino(path: Path, batch: Any) -> None:
    openvino = pytest.importorskip("openvino")
    compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    (out,) = compiled(batch).values()
    np.testing.assert_allclose(out, Runner(path)(batch), atol=FLOAT32, rtol=0)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (Descriptor(Plain(), input_channels=1), "channels"),
        (Descriptor(Plain(), scale=1), "x1"),
        (Descriptor(Plain(), multiple_of=4), "multiples"),
        (Descriptor(Plain(), square=True), "multiples"),
        (Descriptor(Global()), "depends on more than 512"),
        (Descriptor(Windows()), "where in the picture"),
        (Descriptor(Plain(), brighter=0.1), "more around it"),
        (Descriptor(Plain(), scale=4), "turns"),
        (Descriptor(nn.Conv2d(5, 3, 3)), "fails on a small picture"),
        (KeyError("no such architecture"), "not recognised"),
        (RuntimeError("size mismatch"), "cannot build it"),
    ],
)
def test_what_srcli_cannot_run_is_refused(
    result: Descriptor | Exception,
    reason: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    user_models: Path,
) -> None:
    install(monkeypatch, result)
    with pytest.raises(ModelFileError, match=rf"net\.pth.*{reason}"):
        import_weights(Request(state(tmp_path), "foreign"))
    assert not user_models.exists()


def test_a_spandrel_that_cannot_be_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision of another build raises a RuntimeError at import."""
    (tmp_path / "spandrel.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spandrel", raising=False)
    with pytest.raises(ModelFileError, match=r"cannot be loaded.*nms"):
        import_weights(Request(state(tmp_path), "foreign"))


@pytest.mark.parametrize("side", [1, 3, 9, 71])
def test_the_receptive_field_is_exact(side: int) -> None:
    """The kernel's radius, and one for the last convolution on doubled pixels (a half, rounded up)."""
    network = ForeignNetwork(Plain(side).eval(), 2, 0)
    assert measure_radius(network, 2) == side // 2 + 1
    check_position(network, 2, side // 2 + 1)


def test_real_spandrel(tmp_path: Path) -> None:
    """A tiny SPAN, whose training-time branches must be fused before it can be exported."""
    try:
        from spandrel.architectures.SPAN import SPAN
    except Exception:
        pytest.skip("spandrel is not installed")
    torch.manual_seed(0)
    network = SPAN(num_in_ch=3, num_out_ch=3, feature_channels=8, upscale=2).eval()
    torch.save(network.state_dict(), tmp_path / "2x_span.pth")
    (file,) = import_weights(Request(tmp_path / "2x_span.pth"))
    assert (file.spec.name, file.spec.scale, file.spec.exact_halo) == ("span", 2, 21)
    with torch.inference_mode():
        want = network(torch.from_numpy(photo_batch())).numpy()
    # Pixels run to 255 inside and its fused kernels are sums, so float32 leaves 1e-4 of 0-1 at most.
    np.testing.assert_allclose(Runner(file.path)(photo_batch()), want, atol=1e-4, rtol=0)
