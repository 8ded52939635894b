"""The networks of the paper's Table 1 as data: no PyTorch needed to read this file."""

from dataclasses import dataclass, replace

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
    "mdsr": NetworkSpec("mdsr", "mdsr", blocks=80, features=64),
}


def preset(name: str, scale: int | None = None) -> NetworkSpec:
    """A preset, made for `scale` (all three scales for MDSR, whatever is asked).

    Raises:
        ModelNotFoundError: no such preset, or a single-scale network without a valid scale.
    """
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
