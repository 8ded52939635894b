"""SRResNet (Ledig et al. 2017) with batch norm: what the paper's Table 1 compares EDSR with."""

from torch import Tensor, nn

from srcli_train.networks.layers import MeanShift, conv
from srcli_train.networks.spec import NetworkSpec


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
