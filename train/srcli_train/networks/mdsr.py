"""MDSR: one trunk, a pre-processing module and an upsampler a scale (paper, section 3.4)."""

from torch import Tensor, nn

from srcli_train.networks.layers import Body, MeanShift, ResBlock, conv, upsampler
from srcli_train.networks.spec import NetworkSpec


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
