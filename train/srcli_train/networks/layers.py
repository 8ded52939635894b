"""The parts EDSR, MDSR and SRResNet are made of."""

import torch
from torch import Tensor, nn

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
