"""The outputs added to a network, run by ONNX Runtime: the same pixels that the host would make."""

import numpy as np
import onnx
import onnxruntime
import pytest
import tiny_networks
from numpy.typing import NDArray
from tensorrt_doubles import picture

from srcli.backends.rewrite import to_half
from srcli.backends.tensorrt.outputs import LEVELS, ODD, with_levels
from srcli.imaging import pixels


def run(model: onnx.ModelProto, lr: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(["sr", LEVELS, ODD], {"lr": lr})]


@pytest.mark.parametrize("half", [False, True])
def test_the_levels_are_those_the_host_would_make(half: bool) -> None:
    plain = tiny_networks.build(tiny_networks.tiny_spec(2))
    model = with_levels(to_half(plain) if half else plain)
    onnx.checker.check_model(model)
    lr = picture(17, 23) * 3 - 1  # so that the output leaves 0-1 on both sides
    sr, levels, odd = run(model, lr)
    assert sr.min() < 0
    assert sr.max() > 1
    assert levels.dtype == np.uint8
    assert np.array_equal(levels[0], pixels.from_network(sr, np.dtype(np.uint8), 3))
    assert (odd.shape, float(odd)) == ((), 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_no_number_is_enough(value: float) -> None:
    model = with_levels(tiny_networks.build(tiny_networks.tiny_spec(2)))
    lr = picture(17, 23)
    lr[0, 1, 5, 6] = value
    assert float(run(model, lr)[2]) == 1
