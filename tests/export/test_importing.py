"""EDSR and MDSR weights of other programs come out of srcli as they would out of those."""

import json
from collections.abc import Mapping
from pathlib import Path

import foreign_weights
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tiny_exports import checkpoint, expected, files, photo_batch, photograph

from srcli import Upscaler
from srcli.models import catalog
from srcli.models.spec import read_spec
from srcli_export.calibration import charts
from srcli_export.exporter import Exported
from srcli_export.importing import Request, edsr, import_weights, importer
from srcli_export.runtime import Batch, Pixels, Runner
from srcli_train.networks import NetworkSpec, exact_halo

FLOAT32 = 1e-5
"""Two programs add the same products in different order: a few units in the last place on 0-1."""


@pytest.fixture(autouse=True)
def small_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the halo on a picture of one tile, which is quick and proves nothing: the exact one results."""
    monkeypatch.setattr(importer.images, "charts", lambda side=96: [charts(side)[0]])


def saved(path: Path, state: Mapping[str, object]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(dict(state), path)
    return path


def batches() -> list[Batch]:
    return [photo_batch(), np.random.default_rng(1).random((2, 3, 5, 8), np.float32)]


def tensor(batch: Batch) -> torch.Tensor:
    return torch.from_numpy(batch)


def assert_equal(path: Path, batch: Batch, want: torch.Tensor) -> None:
    np.testing.assert_allclose(Runner(path)(batch), want.numpy(), atol=FLOAT32, rtol=0)


def imported(request: Request, scales: tuple[int, ...]) -> list[Exported]:
    result = import_weights(request)
    assert tuple(file.spec.scale for file in result) == scales
    assert all(file.max_error <= FLOAT32 for file in result)
    return result


@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_edsr_pytorch(scale: int, tmp_path: Path) -> None:
    state = foreign_weights.edsr(scale)
    path = saved(tmp_path / f"EDSR_small_x{scale}-1bc95232.pt", state)
    (file,) = imported(Request(path, license_name="MIT"), (scale,))
    for batch in batches():
        want = foreign_weights.run_edsr(state, tensor(batch), scale, limit=255, shift=True, scaling=1)
        assert_equal(file.path, batch, want)
    assert file.path == catalog.user_folder() / f"edsr_small-x{scale}.onnx"
    spec = read_spec(file.path)
    assert spec == file.spec
    assert spec is not None
    assert (spec.name, spec.family, spec.blocks, spec.features) == ("edsr_small", "edsr", 2, 6)
    assert (spec.license, spec.precision) == ("MIT", "fp32")
    assert spec.parameters == sum(v.numel() for k, v in state.items() if "mean" not in k)
    if scale < 8:
        ours = NetworkSpec("", "edsr", blocks=2, features=6, scales=(scale,))
        assert spec.exact_halo == exact_halo(ours, scale)
    assert path.name in spec.training.recipe


def test_large_edsr_has_residual_scaling_unless_said_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """256 features: 0.1 as published. It is logged, since nothing in the file tells."""
    caplog.set_level("INFO")
    assert edsr.LARGE == 256
    monkeypatch.setattr(edsr, "LARGE", 6)  # the same at a size that is quick
    state = foreign_weights.edsr(2)
    path = saved(tmp_path / "large.pt", state)
    for scaling, request in ((0.1, Request(path)), (0.5, Request(path, "other", residual_scale=0.5))):
        result = imported(request, (2,))
        want = foreign_weights.run_edsr(
            state, tensor(photo_batch()), 2, limit=255, shift=True, scaling=scaling
        )
        assert_equal(result[0].path, photo_batch(), want)
        assert f"Residual scaling {scaling:g}" in caplog.text


@pytest.mark.parametrize("scales", [(2, 3, 4), (4,), (3, 2)])
def test_mdsr_of_edsr_pytorch(scales: tuple[int, ...], tmp_path: Path) -> None:
    state = foreign_weights.mdsr(scales)
    path = saved(tmp_path / "MDSR_small.pt", state)
    result = imported(Request(path), tuple(sorted(scales)))
    for file in result:
        for batch in batches():
            want = foreign_weights.run_mdsr(state, tensor(batch), scales, file.spec.scale)
            assert_equal(file.path, batch, want)
        ours = NetworkSpec("", "mdsr", blocks=2, features=6, scales=scales)
        assert file.spec.exact_halo == exact_halo(ours, file.spec.scale)
    shared = ["mdsr_small.weights"] if len(scales) > 1 else []
    graphs = [f"mdsr_small-x{scale}.onnx" for scale in sorted(scales)]
    assert files(catalog.user_folder()) == graphs + shared


@pytest.mark.parametrize("scaling", [None, 0.2])
def test_super_image_edsr(scaling: float | None, tmp_path: Path) -> None:
    """0-1 inside, and a mean shift that is in the file but never used; the name of the file tells."""
    state = foreign_weights.edsr(3)
    path = saved(tmp_path / "edsr-base" / "pytorch_model_3x.pt", state)
    if scaling is not None:
        config = {"model_type": "EDSR", "n_resblocks": 2, "n_feats": 6, "res_scale": scaling}
        path.with_name("config.json").write_text(json.dumps(config))
    (file,) = imported(Request(path), (3,))
    for batch in batches():
        want = foreign_weights.run_edsr(state, tensor(batch), 3, limit=1, shift=False, scaling=scaling or 1)
        assert_equal(file.path, batch, want)
    assert file.spec.name == "edsr-base"
    (other,) = imported(Request(path, "official", residual_scale=1, convention="edsr-pytorch"), (3,))
    want = foreign_weights.run_edsr(state, tensor(batch), 3, limit=255, shift=True, scaling=1)
    assert_equal(other.path, batch, want)


def _copying_edsr() -> dict[str, torch.Tensor]:
    """Repeats pixels when they run from 0 to 1; its ReLUs cut off what a mean shift makes negative."""
    state = {key: value * ("mean" in key) for key, value in foreign_weights.edsr(2).items()}
    for channel in range(3):
        for key in ("head.0", *(f"body.{i}.body.{j}" for i in (0, 1) for j in (0, 2)), "body.2"):
            state[f"{key}.weight"][channel, channel, 1, 1] = 1
        state["tail.0.0.weight"][4 * channel : 4 * channel + 4, channel, 1, 1] = 1
        state["tail.1.weight"][channel, channel, 1, 1] = 1 / 5  # head, and four times that from the body
    state["head.0.bias"] += 10
    state["tail.1.bias"] -= 10
    return state


def test_weights_of_the_other_convention_are_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = saved(tmp_path / "renamed.pt", _copying_edsr())
    import_weights(Request(path))
    (warning,) = [record for record in caplog.records if record.levelname == "WARNING"]
    assert "--convention super-image" in warning.getMessage()
    caplog.clear()
    (file,) = import_weights(Request(path, "right", convention="super-image"))
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    batch = photo_batch()
    np.testing.assert_allclose(
        Runner(file.path)(batch), batch.repeat(2, axis=2).repeat(2, axis=3), atol=FLOAT32, rtol=0
    )


@pytest.mark.parametrize("scale", [2, 4])
def test_super_image_mdsr(scale: int, tmp_path: Path) -> None:
    state = foreign_weights.super_image_mdsr(scale)
    (file,) = imported(Request(saved(tmp_path / "m.pt", state)), (scale,))
    for batch in batches():
        assert_equal(file.path, batch, foreign_weights.run_super_image_mdsr(state, tensor(batch), scale))
    assert file.spec.exact_halo == 1 + 4 + 4 + 1 + 1 + 1  # 3×3 kernels everywhere; upsampler and tail: 1


@pytest.mark.parametrize("limit", [1.0, 255.0])
def test_another_mean_colour_and_range_are_kept(
    limit: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    state = foreign_weights.edsr(2, limit=limit, mean=torch.tensor([0.5, 0.25, 0.125]))
    result = imported(Request(saved(tmp_path / "other.pt", state)), (2,))
    for batch in batches():
        want = foreign_weights.run_edsr(state, tensor(batch), 2, limit=limit, shift=True, scaling=1)
        assert_equal(result[0].path, batch, want)
    assert "0.5000, 0.2500, 0.1250" in caplog.text


def test_wrappers_prefixes_and_half_precision(tmp_path: Path) -> None:
    """As training programs save: in a dictionary, behind the name of a wrapper, as fp16."""
    state = {key: value.half() for key, value in foreign_weights.edsr(2).items()}
    wrapped = {"params": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}
    (file,) = imported(Request(saved(tmp_path / "wrapped.pth", wrapped)), (2,))
    full = {key: value.float() for key, value in state.items()}
    full["add_mean.bias"] = -full["sub_mean.bias"]
    want = foreign_weights.run_edsr(full, tensor(photo_batch()), 2, limit=255, shift=True, scaling=1)
    assert_equal(file.path, photo_batch(), want)


def test_safetensors(tmp_path: Path) -> None:
    """The format by hand: header length, header, values one after the other."""
    state, header, data = foreign_weights.edsr(2), {"__metadata__": {"a": "b"}}, b""
    for key, value in state.items():
        values = value.contiguous().numpy().tobytes()
        offsets = [len(data), len(data) + len(values)]
        header[key] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": offsets}  # type: ignore[dict-item]
        data += values
    text = json.dumps(header).encode()
    path = tmp_path / "net.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)
    (file,) = imported(Request(path), (2,))
    want = foreign_weights.run_edsr(state, tensor(photo_batch()), 2, limit=255, shift=True, scaling=1)
    assert_equal(file.path, photo_batch(), want)


@pytest.mark.parametrize("name", ["edsr", "mdsr", "srresnet"])
def test_own_checkpoints_are_imported_under_another_name(name: str, tmp_path: Path) -> None:
    path, network = checkpoint(tmp_path, name, 3)
    result = import_weights(Request(path, "mine"))
    for file in result:
        want = torch.from_numpy(expected(network, photo_batch(), file.spec.scale))
        assert_equal(file.path, photo_batch(), want)
        assert (file.spec.name, file.spec.family) == ("mine", name)
        assert file.spec.quality == {"Set5": {2: 37.5, 3: 33.5, 4: 31.5}[file.spec.scale]}
        network_spec = NetworkSpec(name, name, blocks=2, features=8, scales=(file.spec.scale,))
        assert file.spec.exact_halo == exact_halo(network_spec, file.spec.scale)
        assert file.spec.training.updates == 7


def test_the_halo_of_imported_networks_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importer.images, "charts", charts)
    state = {key: value * (0.3 if "body.1" in key else 1) for key, value in foreign_weights.edsr(4).items()}
    (file,) = imported(Request(saved(tmp_path / "a.pt", state)), (4,))
    assert 0 < file.spec.halo <= file.spec.exact_halo == 8


def test_an_imported_model_runs_by_its_name(tmp_path: Path) -> None:
    """Tiles included: a picture larger than one gives what the whole network gives, to 1 of 255."""
    state = foreign_weights.edsr(2)
    imported(Request(saved(tmp_path / "a.pt", state), "my-net"), (2,))
    assert catalog.resolve("my-net", 2).yours
    image: Pixels = photograph()[:70, :90]
    upscaler = Upscaler("my-net", 2, backend="onnxruntime", tile=40)
    batch: NDArray[np.float32] = np.ascontiguousarray(image.transpose(2, 0, 1)[None], np.float32) / 255
    want = foreign_weights.run_edsr(state, tensor(batch), 2, limit=255, shift=True, scaling=1)
    pixels = (want[0].clamp(0, 1) * 255 + 0.5).floor().numpy().transpose(1, 2, 0)
    assert np.abs(upscaler(image).astype(int) - pixels).max() <= 1
