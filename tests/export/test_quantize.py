"""Which convolutions compute in eight bits, and in what steps."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from tiny_exports import Pixels, checkpoint, photograph, tiny

from srcli.errors import ExportError
from srcli_export import quantize
from srcli_export.calibration import lettering
from srcli_export.collapse import collapsed
from srcli_export.exporter import describe, export_checkpoint
from srcli_export.fuse import fuse
from srcli_export.graph import Steps, build_model, embedded, stored_weights
from srcli_export.layers import convolutions, multiply_adds
from srcli_export.quantize import chosen, quantized
from srcli_export.runtime import Runner, to_batch
from srcli_train.checkpoint import load_checkpoint


def small() -> Pixels:
    return photograph()[60:140, 60:140]


def steps_on(folder: Path, images: list[Pixels]) -> dict[str, Steps]:
    spec, network = tiny("edsr-baseline", 2)
    path, _ = checkpoint(folder, "edsr-baseline", 2)
    file = export_checkpoint(path, folder / "out", calibration=[small()])[0].path
    layers = collapsed(fuse(network, spec, 2))
    about = describe(load_checkpoint(path), 2, layers)
    return quantized(file, layers, stored_weights(layers, "fp32"), about, images)


def test_the_quietest_for_their_work_are_taken_as_far_as_the_noise_may_go() -> None:
    noise = {"loud": 9e-6, "quiet": 1e-6, "large": 4e-6, "middling": 2e-6}
    work = {"loud": 10, "quiet": 10, "large": 1000, "middling": 10}
    levels = 255 * (7e-6) ** 0.5
    assert chosen(noise, work, levels * 1.001) == {"large", "quiet", "middling"}
    assert chosen(noise, work, levels * 0.9) == {"large", "quiet"}
    assert chosen(noise, work, 0.0) == set()


def test_dim_photographs_calibrate_for_bright_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else all that is brighter would be clipped, and come out darker. Without lettering, which is bright."""
    monkeypatch.setattr(quantize, "lettering", list)
    bright, dim = (steps_on(tmp_path, [photo]) for photo in (small(), small() // 4))
    common = bright.keys() & dim.keys()
    assert len(common) >= 3
    for name in common:
        assert dim[name].input == pytest.approx(bright[name].input, rel=0.1), (
            name
        )  # // 4 rounds, nothing else


NAME = "body.blocks.1.conv1"


def read_by(name: str, folder: Path) -> list[np.ndarray]:  # type: ignore[type-arg]
    """What a convolution reads on the photograph, on the same from black to white, and on lettering."""
    model = onnx.load(next(folder.glob("*.onnx")))
    tensor = next(node.input[0] for node in model.graph.node if node.name == name)
    model.graph.output.append(onnx.helper.make_tensor_value_info(tensor, onnx.TensorProto.FLOAT, None))
    stretched = np.rint((small() - np.float64(small().min())) * 255 / np.ptp(small())).astype(np.uint8)
    shown = (small(), stretched, *lettering())
    return [Runner(Path("it"), model).values([tensor], to_batch(one))[0] for one in shown]


@pytest.mark.parametrize(("name", "least", "most"), [(NAME, -127, 127), ("body.blocks.1.conv2", 0, 255)])
def test_a_step_is_the_one_that_changes_least_of_what_is_read(
    name: str, least: int, most: int, tmp_path: Path
) -> None:
    found = steps_on(tmp_path, [small()])[name]
    assert found.signed == (least < 0)
    seen = np.concatenate([values.ravel() for values in read_by(name, tmp_path / "out")])
    tried = [np.float32(share * np.abs(seen).max() / most) for share in quantize._REACHES]
    costs = [np.square(seen - np.clip(np.rint(seen / step), least, most) * step).sum() for step in tried]
    assert found.input == pytest.approx(tried[int(np.argmin(costs))], rel=1e-5)


def test_steps_are_not_so_fine_that_most_is_cut_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantize, "_REACHES", (1.0, 0.001))
    found = steps_on(tmp_path, [small()])[NAME]
    largest = max(np.abs(values).max() for values in read_by(NAME, tmp_path / "out"))
    assert found.input * 127 == pytest.approx(largest, rel=1e-5)


def test_little_noise_is_made_and_none_without_eight_bits(tmp_path: Path) -> None:
    spec, network = tiny("edsr-baseline", 2)
    layers = collapsed(fuse(network, spec, 2))
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    about = describe(load_checkpoint(path), 2, layers)
    weights = embedded(stored_weights(layers, "fp32"))
    step = np.float32(1 / 127)
    kernel = np.abs(dict(_kernels(layers))["body.blocks.0.conv1"]).max(axis=(1, 2, 3)) / 127
    one = {"body.blocks.0.conv1": Steps(step, kernel.astype(np.float32))}
    batch = to_batch(small())
    plain, same, eight = (
        Runner(Path("it"), build_model(layers, weights, about, int8=int8))(batch) for int8 in (None, {}, one)
    )
    np.testing.assert_array_equal(plain, same)
    assert np.abs(plain - eight).max() > 0


def test_a_network_that_bears_no_eight_bits_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quantize, "NOISE", 0.0)
    with pytest.raises(ExportError, match="every convolution") as caught:
        steps_on(tmp_path, [small()])
    assert "Leave int8 out" in caught.value.hint


def test_a_network_of_two_convolutions_is_refused(tmp_path: Path) -> None:
    """Neither the first nor the last computes in eight bits."""
    spec, network = tiny("edsr-baseline", 2)
    layers = collapsed(fuse(network, spec, 2))
    path, _ = checkpoint(tmp_path, "edsr-baseline", 2)
    ends, about = (layers[0], layers[-1]), describe(load_checkpoint(path), 2, layers)
    assert len(list(convolutions(ends))) == 2
    with pytest.raises(ExportError, match="every convolution"):
        quantized(Path("none.onnx"), ends, stored_weights(ends, "fp32"), about, [small()])


def test_every_convolution_is_counted_once(tmp_path: Path) -> None:
    """After x2 a convolution runs four times for each LR pixel."""
    spec, network = tiny("mdsr", 4)
    layers = fuse(network, spec, 4)
    work = dict(convolutions(layers))
    assert sum(work.values()) == multiply_adds(layers)
    sizes = {name: kernel.size for name, kernel in _kernels(layers)}
    names = ("head", "body.last", "upsampler.4.0", "upsampler.4.2", "tail")
    assert [work[name] // sizes[name] for name in names] == [1, 1, 1, 4, 8]  # the tail counts once
    assert list(work)[-1] == "tail"
    merged = collapsed(layers)
    assert list(convolutions(merged))[:-1] == list(work.items())[:-3]
    assert list(convolutions(merged))[-1] == ("upsampler.4.merged", 8 * 48 * 25)


def _kernels(layers):  # type: ignore[no-untyped-def]
    from srcli_export.layers import arrays

    return [(name.removesuffix(".weight"), v) for name, v in arrays(layers) if name.endswith(".weight")]
