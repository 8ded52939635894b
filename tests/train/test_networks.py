"""The networks are the paper's, counted to the last parameter."""

import pytest
import torch

from srcli_train.networks import build, exact_halo, parameter_count, preset


def _edsr(blocks: int, f: int, scale: int) -> int:
    """Parameters from the architecture: head, blocks, last, upsampler, tail."""
    c3 = 9 * f * f + f
    up = {2: 9 * f * 4 * f + 4 * f, 3: 9 * f * 9 * f + 9 * f, 4: 2 * (9 * f * 4 * f + 4 * f)}[scale]
    return (27 * f + f) + 2 * blocks * c3 + c3 + up + (27 * f + 3)


@pytest.mark.parametrize(
    ("name", "scale", "count"),
    [
        ("edsr-baseline", 2, 1_369_859),
        ("edsr-baseline", 3, 1_554_499),
        ("edsr-baseline", 4, 1_517_571),
        ("edsr", 2, 40_729_603),
        ("edsr", 3, 43_680_003),
        ("edsr", 4, 43_089_923),
    ],
)
def test_edsr_parameter_counts(name: str, scale: int, count: int) -> None:
    spec = preset(name, scale)
    assert _edsr(spec.blocks, spec.features, scale) == count
    with torch.device("meta"):
        assert parameter_count(build(spec)) == count


@pytest.mark.parametrize(
    ("name", "blocks", "count"), [("mdsr-baseline", 16, 3_227_203), ("mdsr-80", 80, 7_953_987)]
)
def test_mdsr_parameter_counts(name: str, blocks: int, count: int) -> None:
    pre = 3 * 4 * (25 * 64 * 64 + 64)
    trunk_and_up = sum(_edsr(blocks, 64, s) for s in (2, 3, 4)) - 2 * _edsr(blocks, 64, 2)
    shared_up = 2 * (9 * 64 * 256 + 256)  # subtracted twice with x2's upsampler, present once in x2
    with torch.device("meta"):
        network = build(preset(name))
    assert parameter_count(network) == count == pre + trunk_and_up + shared_up


def test_srresnet_has_one_and_a_half_million_parameters() -> None:
    convolutions = 16 * 2 * 36_928 + 36_928 + 2 * (9 * 64 * 256 + 256)
    ends = (243 * 64 + 64) + (81 * 64 * 3 + 3)
    norms = 33 * 2 * 64
    prelus = 16 + 1 + 2
    with torch.device("meta"):
        assert (
            parameter_count(build(preset("srresnet", 4))) == convolutions + ends + norms + prelus == 1_549_462
        )


@pytest.mark.parametrize("name", ["edsr-baseline", "mdsr-baseline", "srresnet"])
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_output_shape(name: str, scale: int) -> None:
    with torch.no_grad():
        out = build(preset(name, scale))(torch.rand(2, 3, 7, 5), scale)
    assert out.shape == (2, 3, 7 * scale, 5 * scale)


@pytest.mark.parametrize(("name", "factor"), [("edsr", 0.1), ("edsr-baseline", 1.0), ("mdsr-80", 1.0)])
def test_residual_scaling_is_where_the_paper_has_it(name: str, factor: float) -> None:
    with torch.device("meta"):
        network = build(preset(name, 2))
    assert {block.scale for block in network.body.blocks} == {factor}


def test_residual_scaling_multiplies_the_branch() -> None:
    from srcli_train.networks import ResBlock

    x, plain, scaled = torch.rand(1, 8, 6, 6), ResBlock(8), ResBlock(8, scale=0.1)
    scaled.load_state_dict(plain.state_dict())
    torch.testing.assert_close(scaled(x) - x, 0.1 * (plain(x) - x))


def test_mdsr_uses_only_the_branches_of_its_scale() -> None:
    network = build(preset("mdsr-baseline"))
    network(torch.rand(1, 3, 6, 6), 3).sum().backward()
    touched = {name for name, p in network.named_parameters() if p.grad is not None}
    branches = {name.split(".")[1] for name in touched if name.startswith(("pre_process", "upsampler"))}
    assert branches == {"3"}
    assert any(name.startswith("body") for name in touched)


@pytest.mark.parametrize(
    ("name", "halo"), [("edsr-baseline", 36), ("mdsr-baseline", 44), ("edsr", 68), ("mdsr-80", 172)]
)
@pytest.mark.parametrize("scale", [2, 3, 4])
def test_exact_halo(name: str, halo: int, scale: int) -> None:
    assert exact_halo(preset(name, scale), scale) == halo


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_exact_halo_is_the_radius_that_gradients_reach(scale: int) -> None:
    """With positive weights no path cancels, so the gradient's extent is the receptive field."""
    from dataclasses import replace

    spec = replace(preset("mdsr-baseline"), blocks=1, features=2)
    network = build(spec)
    for p in network.parameters():
        torch.nn.init.constant_(p, 0.01)
    image = torch.full((1, 3, 41, 41), 0.9, requires_grad=True)
    centre = 20 * scale
    network(image, scale)[0, :, centre : centre + scale, centre : centre + scale].sum().backward()
    assert image.grad is not None
    rows = image.grad.abs().sum((0, 1, 3)).nonzero().flatten()
    assert (20 - int(rows[0]), int(rows[-1]) - 20) == (exact_halo(spec, scale),) * 2
