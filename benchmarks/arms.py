"""The experiments that `experiments.py` runs, as a table: questions and arms."""

from dataclasses import dataclass

from srcli_train.networks import NetworkSpec, preset
from srcli_train.recipes import Recipe, find, split_settings, with_settings


@dataclass(frozen=True, slots=True)
class Arm:
    """One training of an experiment.

    Attributes:
        label: what is different about it.
        settings: "field=value" for `srcli train --set`.
        model, scale, recipe: of `srcli train`.
        init: label of the arm whose checkpoint it starts from, or the name of a shipped model.
        share: of the experiment's updates.
    """

    label: str
    settings: tuple[str, ...] = ()
    model: str = "edsr-baseline"
    scale: int = 2
    recipe: str = "fast"
    init: str = ""
    share: float = 1.0

    @property
    def scales(self) -> tuple[int, ...]:
        """What `-s` is to say; nothing for MDSR, which has all scales."""
        return () if self.model.startswith("mdsr") else (self.scale,)

    @property
    def network(self) -> NetworkSpec:
        """What is trained, with the settings made."""
        return with_settings(preset(self.model, self.scale), split_settings(self.settings)[0])

    @property
    def chosen(self) -> Recipe:
        """Its recipe, with the settings made."""
        return with_settings(find(self.recipe), split_settings(self.settings)[1])


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question, the arms that answer it, their updates on a CPU, and what was found there."""

    question: str
    arms: tuple[Arm, ...]
    updates: int
    finding: str = ""


_SMALL = ("network.features=32",)
"""A third of the time; what it loses is the same in all arms."""
_EIGHT = (*_SMALL, "network.blocks=8")
"""As `fast`. MDSR's pre-processing, four convolutions of 5×5 a scale, weighs as much as 5.6 of its blocks."""
_ADAM = (*_SMALL, "optimizer=adam", "lr=4e-4", "icnr=false")
_PAPER = ("batch=8", "patch=24")
_WIDE = ("network.blocks=8", "batch=4", "patch=24")

EXPERIMENTS = {
    "chance": Experiment(
        "How far do runs differ by chance alone?",
        (
            Arm("seed 1", _SMALL),
            Arm("seed 2", (*_SMALL, "seed=2")),
            Arm("seed 3", (*_SMALL, "seed=3")),
        ),
        600,
        finding=(
            "Three seeds lie within 0.03 dB: in runs of this length, a single difference below that "
            "says nothing."
        ),
    ),
    "detail": Experiment(
        "Does it help to train on the more detailed of several patches?",
        (
            Arm("any patch", _SMALL),
            Arm("best of 2", (*_SMALL, "candidates=2")),
            Arm("best of 4", (*_SMALL, "candidates=4")),
        ),
        600,
        finding=(
            "Here it helps, by 0.07 and 0.10 dB, more than chance would; the loss is higher because "
            "the patches are harder. Three hundred updates of MDSR-baseline after 6,000 others showed "
            "nothing (results/training): it may be a head start only."
        ),
    ),
    "average": Experiment(
        "Does a running mean of the weights help, with the rate falling to zero and without?",
        (
            Arm("cosine", _SMALL),
            Arm("cosine, mean of 0.99", (*_SMALL, "ema=0.99")),
            Arm("constant", (*_SMALL, "schedule=step")),
            Arm("constant, mean of 0.99", (*_SMALL, "ema=0.99", "schedule=step")),
        ),
        600,
        finding=(
            "Under a cosine that falls to zero a mean adds nothing. Without a fall it is worth 0.39 "
            "dB, and ends 0.11 above the cosine: training at the full rate goes on, and the mean "
            "takes its noise away."
        ),
    ),
    "patch": Experiment(
        "Many small patches or fewer large ones, at equal pixels an update?",
        (
            Arm("28 of 24×24", (*_SMALL, "batch=28", "patch=24")),
            Arm("16 of 32×32", _SMALL),
            Arm("7 of 48×48", (*_SMALL, "batch=7", "patch=48")),
            Arm("4 of 64×64", (*_SMALL, "batch=4", "patch=64")),
        ),
        600,
        finding=(
            "Many small ones, in a young network: 24×24 ends 0.04 dB above 32×32, hardly more than "
            "chance, and 0.12 above both 48×48 and 64×64. For one that has been trained for hours it "
            "is the other way round (results/training): it sees further, and learns from the zeros "
            "around small patches."
        ),
    ),
    "schedule": Experiment(
        "How should the rate fall?",
        (
            Arm("cosine", _SMALL),
            Arm("constant, falling in the last fifth", (*_SMALL, "schedule=trapezoid")),
            Arm("constant, falling in the last half", (*_SMALL, "schedule=trapezoid", "fall=0.5")),
        ),
        600,
        finding=(
            "Constant until the last fifth, then to zero, ends 0.14 dB above the cosine, and "
            "falling in the last half 0.10: more updates at the full rate. A running mean at a "
            "constant rate (the experiment `average`) does as well without knowing the end."
        ),
    ),
    "batch": Experiment(
        "Few large minibatches or many small ones, at equal patches in all?",
        (
            Arm("8, rates / √2", (*_SMALL, "batch=8", "lr=0.0007", "muon_lr=0.0035", "warmup=100")),
            Arm("16", _SMALL, share=0.5),
            Arm(
                "32, rates × √2",
                (*_SMALL, "batch=32", "lr=0.0014", "muon_lr=0.007", "warmup=25"),
                share=0.25,
            ),
            Arm("32, same rates", (*_SMALL, "batch=32", "warmup=25"), share=0.25),
        ),
        1200,
        finding=(
            "Many small ones: at equal patches each halving of the batch gains 0.1 to 0.2 dB "
            "here, and rates grown by the square root of the batch are right, as the same rates "
            "lose 0.2 dB more. Larger batches are for machines that small ones leave idle."
        ),
    ),
    "modern": Experiment(
        "Do the gains of the other experiments add up?",
        (
            Arm("fast", _SMALL),
            Arm("constant, mean of 0.99", (*_SMALL, "ema=0.99", "schedule=step")),
            Arm("and the best of 4 patches", (*_SMALL, "ema=0.99", "schedule=step", "candidates=4")),
            Arm(
                "and centred Muon: modern",
                (*_SMALL, "ema=0.99", "schedule=step", "candidates=4", "muon_centred=true"),
            ),
        ),
        600,
        finding=(
            "They do, as far as chance allows to say: 0.25 dB above `fast` at equal updates. The recipe "
            "`modern` is the last of them."
        ),
    ),
    "restart": Experiment(
        "One long schedule, or a warm restart from a shorter run?",
        (
            Arm("one long run", _SMALL),
            Arm("a run of half the length", _SMALL, share=0.5),
            Arm("warm restart from it", _SMALL, init="a run of half the length", share=0.5),
            Arm(
                "warm restart at half the rates",
                (*_SMALL, "lr=0.0005", "muon_lr=0.0025"),
                init="a run of half the length",
                share=0.5,
            ),
        ),
        1200,
        finding=(
            "A restart brings a finished run on, from 33.94 dB to 34.16 at its first rates and to 34.09 at "
            "half of them, but after as many updates in all one long schedule is 0.07 and 0.13 dB ahead of "
            "these, where chance is 0.03. So: one schedule where the time is known, else a restart at full "
            "rates."
        ),
    ),
    "finish": Experiment(
        "What are the last updates best spent on?",
        (
            Arm("the run before", _SMALL, share=0.75),
            Arm("the same again", _SMALL, init="the run before", share=0.25),
            Arm("larger patches", (*_SMALL, "batch=4", "patch=64"), init="the run before", share=0.25),
            Arm("L2", (*_SMALL, "loss=l2", "clip=30"), init="the run before", share=0.25),
            Arm("lower rates", (*_SMALL, "lr=3e-4", "muon_lr=0.0015"), init="the run before", share=0.25),
        ),
        800,
        finding=(
            "On the same again. Lower rates do no better, larger patches and L2 0.05 and 0.07 dB "
            "worse. Half of the loss on frequencies gains 0.04, hardly more than chance; it is gone since."
        ),
    ),
    "pretraining": Experiment(
        "Does x4 gain from starting at the trained x2 (the paper's figure 4)?",
        (
            Arm("x2", recipe="paper", settings=(*_SMALL, *_PAPER)),
            Arm("x4 from scratch", recipe="paper", settings=(*_SMALL, *_PAPER), scale=4),
            Arm("x4 from x2", recipe="paper", settings=(*_SMALL, *_PAPER), scale=4, init="x2"),
        ),
        3000,
        finding=(
            "It does, as in the paper: it has 27.84 dB after 300 updates, where the one from scratch has "
            "26.63 and needs 1,500 to reach as much, and after 3,000 it is still 0.15 dB ahead."
        ),
    ),
    "ablation": Experiment(
        "The paper's steps from SRResNet to EDSR and MDSR, at equal updates",
        (
            Arm("SRResNet, L2", (*_PAPER, "loss=l2"), model="srresnet", recipe="paper"),
            Arm("SRResNet, L1", _PAPER, model="srresnet", recipe="paper"),
            Arm("EDSR-baseline, L1", _PAPER, recipe="paper"),
            Arm("MDSR-baseline, L1", _PAPER, model="mdsr-baseline", recipe="paper"),
        ),
        3000,
        finding=(
            "The order agrees with the paper in the step that matters most: without batch norm EDSR-baseline "
            "is 0.7 and 1.2 dB above the two SRResNets. It does not agree in the loss: here L1 ends 0.5 dB "
            "below L2, in networks whose validation jumps by up to 2 dB from one point to the next, as batch "
            "norm's statistics of small patches do not fit whole pictures. MDSR-baseline, which sees each "
            "scale in a third of its updates, is 0.3 dB below EDSR-baseline; the paper's, at full length, is "
            "level with it."
        ),
    ),
    "residual-scaling": Experiment(
        "What does residual scaling do at 256 features?",
        (
            Arm("scaled by 0.1", _WIDE, model="edsr", recipe="paper"),
            Arm("not scaled", (*_WIDE, "network.residual_scale=1"), model="edsr", recipe="paper"),
            Arm("scaled, higher rate", (*_WIDE, "lr=1e-3"), model="edsr", recipe="paper"),
            Arm(
                "not scaled, higher rate",
                (*_WIDE, "network.residual_scale=1", "lr=1e-3"),
                model="edsr",
                recipe="paper",
            ),
        ),
        300,
        finding=(
            "At the paper's rate nothing, in 8 of the 32 blocks and 300 updates. At ten times that rate both "
            "are unsteady, and the scaled one is the higher at two of three points, by 6.6 and 3.1 dB: what "
            "it buys is steadiness, as the paper says, and where that is not short it costs nothing."
        ),
    ),
    "optimizer": Experiment(
        "What is left of Muon's head start after more updates?",
        (
            Arm("the paper's Adam", (*_SMALL, "batch=16", "patch=32"), recipe="paper"),
            Arm("Adam, 4e-4, warm-up, cosine", _ADAM),
            Arm("Muon on the body", (*_SMALL, 'muon_modules=["body"]')),
            Arm("Muon on body and upsampler", _SMALL),
        ),
        1600,
        finding=(
            "All of it, against an Adam with the same warm-up and cosine: 0.64 dB after 400 updates, "
            "0.82 after 800 and 0.81 at the end; what Adam reaches with 1,600 Muon has passed with "
            "400. The paper's constant Adam, at a quarter of the rate, is 2.0 dB behind after 400 and "
            "1.26 at the end. Muon on the upsampler, too, is 0.2 dB behind after 400 and 0.03 ahead at "
            "the end. Hundreds of thousands of updates were not compared. (Most minutes of the Muon "
            "runs are a pause.)"
        ),
    ),
    "small": Experiment(
        "A small network a scale, or one MDSR for all?",
        (
            Arm("EDSR of 8 blocks, x2", _EIGHT),
            Arm("EDSR of 8 blocks, x4", _EIGHT, scale=4),
            Arm("EDSR of 8 blocks, x2, as many updates as MDSR makes at x2", _EIGHT, share=1 / 3),
            Arm("MDSR of 3 blocks: equal work", (*_SMALL, "network.blocks=3"), model="mdsr-baseline"),
            Arm("MDSR of 8 blocks: 1.6 times the work", _EIGHT, model="mdsr-baseline"),
        ),
        1500,
        finding=(
            "A network a scale. At equal updates in all, MDSR of equal work is 0.54 dB below at x2 and 0.45 "
            "at x4, and of 1.6 times the work still 0.28 and 0.26. Per update at x2 sharing helps (0.24 and "
            "0.50 dB above an EDSR of a third of the updates); what is shipped has a full training a scale."
        ),
    ),
    "units": Experiment(
        "Muon turns hidden units off: what keeps them, and does it help?",
        (
            Arm("Muon", _SMALL),
            Arm("centred", (*_SMALL, "muon_centred=true")),
        ),
        1200,
        finding=(
            "Centred Muon does: its units fire at 43% of all pixels (on `data/valid`, by units.py), those of "
            "plain Muon at 16%, where 68 of 512 are on at 1% or less. It ends 0.04 dB ahead, little more "
            "than chance. Starting anew, every 200 updates, what fires at 1% or less leaves 37 such units, "
            "and gains nothing, alone or with centred Muon; it is gone since."
        ),
    ),
}
