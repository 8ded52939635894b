"""EDSR: one scale, no batch norm (paper, section 3.3)."""

from torch import Tensor, nn

from srcli_train.networks.layers import Body, MeanShift, conv, upsampler
from srcli_train.networks.spec import NetworkSpec


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
