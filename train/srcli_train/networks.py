"""EDSR, MDSR and SRResNet: `build(preset("edsr-baseline", 2))`."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from srcli.errors import ModelNotFoundError, UsageError

SCALES = (2, 3, 4)
FAMILIES = ("edsr", "mdsr", "srresnet")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Everything needed to build a network.

    Attributes:
        name: preset name.
        family: "edsr", "mdsr" or "srresnet"; decides the class.
        blocks: residual blocks B of the body.
        features: channels F of the body.
        residual_scale: factor on each residual branch (paper, section 3.3); 1 means none.
        scales: scales the network is built for; exactly one unless the family is "mdsr".
        pixel_range: the network's inner unit: pixels run 0..pixel_range inside, 0-1 outside.
    """

    name: str
    family: str
    blocks: int
    features: int
    residual_scale: float = 1.0
    scales: tuple[int, ...] = ()
    pixel_range: float = 255.0

    def __post_init__(self) -> None:
        if self.family not in FAMILIES:
            raise UsageError(
                f"Family {self.family!r} is not known.", f"Choose one of: {', '.join(FAMILIES)}."
            )
        if min(self.blocks, self.features) < 1 or not set(self.scales) <= set(SCALES):
            raise UsageError("A network has at least one block and one feature, and scales of 2, 3 or 4.")
        if self.family != "mdsr" and len(self.scales) > 1:
            raise UsageError(f"A network of family {self.family} has one scale, not {len(self.scales)}.")
        if not (self.residual_scale > 0 and self.pixel_range > 0):
            raise UsageError("Residual scaling and pixel range are numbers above 0.")


PRESETS = {
    "srresnet": NetworkSpec("srresnet", "srresnet", blocks=16, features=64),
    "edsr-baseline": NetworkSpec("edsr-baseline", "edsr", blocks=16, features=64),
    "edsr": NetworkSpec("edsr", "edsr", blocks=32, features=256, residual_scale=0.1),
    "mdsr-baseline": NetworkSpec("mdsr-baseline", "mdsr", blocks=16, features=64),
    "mdsr-80": NetworkSpec("mdsr-80", "mdsr", blocks=80, features=64),
}


def preset(name: str, scale: int | None = None) -> NetworkSpec:
    """A preset, made for `scale` (all three scales for MDSR, whatever is asked).

    Raises:
        ModelNotFoundError: no such preset, or a single-scale network without a valid scale.
    """
    if name == "mdsr":
        raise ModelNotFoundError(
            "There are two networks of this family.",
            "Choose mdsr-baseline, with 16 blocks, or mdsr-80, with the paper's 80.",
        )
    if name not in PRESETS:
        raise ModelNotFoundError(f"No network is called {name!r}.", f"Choose one of: {', '.join(PRESETS)}.")
    spec = PRESETS[name]
    if spec.family == "mdsr":
        return replace(spec, scales=SCALES)
    if scale not in SCALES:
        raise ModelNotFoundError(f"{name} needs a scale of 2, 3 or 4, not {scale}.", "Give it with -s.")
    return replace(spec, scales=(scale,))


def exact_halo(spec: NetworkSpec, scale: int) -> int:
    """Receptive-field radius in LR pixels, fractions of upsampled layers rounded up.

    Head, body, the body's last convolution and the first upsampler convolution run at LR size;
    the second upsampler convolution of x4 at twice that, the tail at `scale` times that.
    """
    ends = 4 if spec.family == "srresnet" else 1  # radius of the head and tail kernels, 9×9 or 3×3
    pre_processing = 2 * 2 * 2 if spec.family == "mdsr" else 0  # two blocks of two 5×5 convolutions
    fine = ends / scale + (0.5 if scale == 4 else 0.0)
    return ends + pre_processing + 2 * spec.blocks + 1 + 1 + -int(-fine // 1)


MEAN_RGB = (0.4488, 0.4371, 0.4040)
"""Mean colour of DIV2K on 0-1 (paper, section 4.2: subtracted from every input)."""


def conv(inputs: int, outputs: int, kernel: int = 3) -> nn.Conv2d:
    """A convolution that keeps height and width (zero padding)."""
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2)


class MeanShift(nn.Module):
    """0-1 RGB -> zero-mean, 0..pixel_range, and back."""

    mean: Tensor

    def __init__(self, pixel_range: float) -> None:
        super().__init__()
        self.pixel_range = pixel_range
        self.register_buffer("mean", torch.tensor(MEAN_RGB).view(1, 3, 1, 1), persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        return (image - self.mean) * self.pixel_range

    def undo(self, image: Tensor) -> Tensor:
        """The inverse of forward, in float32."""
        return image.float() / self.pixel_range + self.mean


class ResBlock(nn.Module):
    """conv-ReLU-conv, times `scale`, plus the input (paper, figure 2c; no batch norm).

    (N, F, H, W) -> (N, F, H, W).
    """

    def __init__(self, features: int, kernel: int = 3, scale: float = 1.0) -> None:
        super().__init__()
        self.conv1 = conv(features, features, kernel)
        self.conv2 = conv(features, features, kernel)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        residual: Tensor = self.conv2(torch.relu(self.conv1(x)))
        return x + (residual if self.scale == 1.0 else residual * self.scale)


class Body(nn.Module):
    """B residual blocks and a convolution under one long skip (paper, figure 3)."""

    def __init__(self, blocks: int, features: int, scale: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(*(ResBlock(features, scale=scale) for _ in range(blocks)))
        self.last = conv(features, features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.last(self.blocks(x))
        return x + out


def upsampler(features: int, scale: int) -> nn.Sequential:
    """conv + PixelShuffle, once for x2 and x3, twice by 2 for x4: (N, F, H, W) -> (N, F, sH, sW)."""
    steps = {2: (2,), 3: (3,), 4: (2, 2)}[scale]
    layers: list[nn.Module] = []
    for step in steps:
        layers += [conv(features, features * step**2), nn.PixelShuffle(step)]
    return nn.Sequential(*layers)


class EDSR(nn.Module):
    """(N, 3, H, W) RGB 0-1 -> (N, 3, sH, sW), not clipped."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        (self.scale,) = spec.scales
        self.shift = MeanShift(spec.pixel_range)
        self.head = conv(3, spec.features)
        self.body = Body(spec.blocks, spec.features, spec.residual_scale)
        self.upsampler = upsampler(spec.features, self.scale)
        self.tail = conv(spec.features, 3)

    def forward(self, image: Tensor, scale: int) -> Tensor:
        assert scale == self.scale, f"built for x{self.scale}, called for x{scale}"
        x = self.body(self.head(self.shift(image)))
        return self.shift.undo(self.tail(self.upsampler(x)))


class MDSR(nn.Module):
    """(N, 3, H, W) RGB 0-1 and a scale -> (N, 3, sH, sW), not clipped. Runs only that scale's branches."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        features = spec.features
        self.shift = MeanShift(spec.pixel_range)
        self.head = conv(3, features)
        self.pre_process = nn.ModuleDict(
            {str(s): nn.Sequential(ResBlock(features, 5), ResBlock(features, 5)) for s in spec.scales}
        )
        self.body = Body(spec.blocks, features, spec.residual_scale)
        self.upsampler = nn.ModuleDict({str(s): upsampler(features, s) for s in spec.scales})
        self.tail = conv(features, 3)

    def forward(self, image: Tensor, scale: int) -> Tensor:
        x = self.pre_process[str(scale)](self.head(self.shift(image)))
        x = self.upsampler[str(scale)](self.body(x))
        return self.shift.undo(self.tail(x))


class NormBlock(nn.Module):
    """conv-BN-PReLU-conv-BN plus the input (paper, figure 2b)."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = conv(features, features), nn.BatchNorm2d(features)
        self.activation = nn.PReLU()
        self.conv2, self.norm2 = conv(features, features), nn.BatchNorm2d(features)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.norm2(self.conv2(self.activation(self.norm1(self.conv1(x)))))
        return x + out


class SRResNet(nn.Module):
    """(N, 3, H, W) RGB 0-1 -> (N, 3, sH, sW), not clipped. Head and tail kernels are 9×9."""

    def __init__(self, spec: NetworkSpec) -> None:
        super().__init__()
        (self.scale,) = spec.scales
        features = spec.features
        self.shift = MeanShift(spec.pixel_range)
        self.head = nn.Sequential(conv(3, features, 9), nn.PReLU())
        self.blocks = nn.Sequential(*(NormBlock(features) for _ in range(spec.blocks)))
        self.last = nn.Sequential(conv(features, features), nn.BatchNorm2d(features))
        steps = {2: (2,), 3: (3,), 4: (2, 2)}[self.scale]
        layers: list[nn.Module] = []
        for step in steps:
            layers += [conv(features, features * step**2), nn.PixelShuffle(step), nn.PReLU()]
        self.upsampler = nn.Sequential(*layers)
        self.tail = conv(features, 3, 9)

    def forward(self, image: Tensor, scale: int) -> Tensor:
        assert scale == self.scale, f"built for x{self.scale}, called for x{scale}"
        x = self.head(self.shift(image))
        x = x + self.last(self.blocks(x))
        return self.shift.undo(self.tail(self.upsampler(x)))


_CLASSES: dict[str, type[EDSR | MDSR | SRResNet]] = {"edsr": EDSR, "mdsr": MDSR, "srresnet": SRResNet}


def build(spec: NetworkSpec) -> nn.Module:
    """A freshly initialised network; call it as `network(batch, scale)`.

    Batches are (N, 3, H, W) float RGB on 0-1; results (N, 3, scale*H, scale*W) float32, not clipped.
    """
    return _CLASSES[spec.family](spec)


def parameter_count(network: nn.Module) -> int:
    """Number of trained values."""
    return sum(p.numel() for p in network.parameters())
