"""The experiments that `experiments.py` runs, as a table: questions and arms."""

from dataclasses import dataclass

from srcli_train.networks import NetworkSpec, preset
from srcli_train.recipes import Recipe, find
from srcli_train.settings import changed, divided


@dataclass(frozen=True, slots=True)
class Arm:
    """One training of an experiment.

    Attributes:
        label: what is different about it.
        settings: "field=value" for `srcli train --set`.
        model, scale, recipe: of `srcli train`.
        init: label of the arm whose checkpoint it starts from.
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
    def network(self) -> NetworkSpec:
        """What is trained, with the settings made."""
        return changed(preset(self.model, self.scale), divided(self.settings)[0])

    @property
    def chosen(self) -> Recipe:
        """Its recipe, with the settings made."""
        return changed(find(self.recipe), divided(self.settings)[1])


@dataclass(frozen=True, slots=True)
class Experiment:
    """A question, the arms that answer it, their updates on a CPU, and what was found there."""

    question: str
    arms: tuple[Arm, ...]
    updates: int
    finding: str = ""


_ADAM = ("optimizer=adam", "lr=4e-4", "icnr=false")
_PAPER = ("batch=8", "patch=32")
_WIDE = ("network.blocks=8", "batch=4", "patch=24")

EXPERIMENTS = {
    "optimizer": Experiment(
        "What is left of Muon's head start after more updates?",
        (
            Arm("the paper's Adam", ("batch=16", "patch=32"), recipe="paper"),
            Arm("Adam, 4e-4, warm-up, cosine", _ADAM),
            Arm("Muon on the body", ('muon_modules=["body"]',)),
            Arm("Muon on body and upsampler"),
        ),
        1600,
    ),
    "units": Experiment(
        "Muon turns hidden units off: what keeps them, and does it help?",
        (
            Arm("Muon"),
            Arm("centred", ("muon_centred=true",)),
            Arm("units that never fire start anew", ("revive=0.0001", "revive_every=100")),
            Arm("both", ("muon_centred=true", "revive=0.0001", "revive_every=100")),
        ),
        1200,
    ),
    "detail": Experiment(
        "Does it help to train on the more detailed of several patches?",
        (Arm("any patch"), Arm("best of 2", ("candidates=2",)), Arm("best of 4", ("candidates=4",))),
        600,
    ),
    "rendered": Experiment(
        "Does a share of rendered lines, facades and lettering help?",
        (
            Arm("photographs alone"),
            Arm("5% rendered", ("rendered=0.05",)),
            Arm("15% rendered", ("rendered=0.15",)),
        ),
        600,
    ),
    "mixup": Experiment(
        "Does it help to blend a share of the patches with others?",
        (
            Arm("as they are"),
            Arm("a quarter blended", ("mixup=0.25",)),
            Arm("all blended", ("mixup=1.0",)),
        ),
        600,
    ),
    "average": Experiment(
        "Does a running mean of the weights help, with the rate falling to zero and without?",
        (
            Arm("cosine"),
            Arm("cosine, mean of 0.998", ("average=0.998",)),
            Arm("constant, mean of 0.998", ("average=0.998", "schedule=step")),
        ),
        600,
    ),
    "patch": Experiment(
        "Many small patches or fewer large ones, at equal pixels an update?",
        (
            Arm("28 of 24×24", ("batch=28", "patch=24")),
            Arm("16 of 32×32"),
            Arm("7 of 48×48", ("batch=7", "patch=48")),
            Arm("4 of 64×64", ("batch=4", "patch=64")),
        ),
        500,
    ),
    "batch": Experiment(
        "Few large minibatches or many small ones, at equal patches in all?",
        (
            Arm("8, rates / √2", ("batch=8", "lr=0.0007", "muon_lr=0.0035", "warmup=100")),
            Arm("16", share=0.5),
            Arm("32, rates × √2", ("batch=32", "lr=0.0014", "muon_lr=0.007", "warmup=25"), share=0.25),
            Arm("32, same rates", ("batch=32", "warmup=25"), share=0.25),
        ),
        1000,
    ),
    "schedule": Experiment(
        "How should the rate fall?",
        (
            Arm("cosine"),
            Arm("constant, falling in the last fifth", ("schedule=trapezoid",)),
            Arm("constant, falling in the last half", ("schedule=trapezoid", "fall=0.5")),
        ),
        800,
    ),
    "restart": Experiment(
        "One long schedule, or a warm restart from a shorter run?",
        (
            Arm("one long run"),
            Arm("a run of half the length", share=0.5),
            Arm("warm restart from it", init="a run of half the length", share=0.5),
            Arm(
                "warm restart at half the rates",
                ("lr=0.0005", "muon_lr=0.0025"),
                init="a run of half the length",
                share=0.5,
            ),
        ),
        1000,
    ),
    "finish": Experiment(
        "What are the last updates best spent on?",
        (
            Arm("the run before", share=0.75),
            Arm("the same again", init="the run before", share=0.25),
            Arm("larger patches", ("batch=4", "patch=64"), init="the run before", share=0.25),
            Arm("L2", ("loss=l2", "clip=30"), init="the run before", share=0.25),
            Arm("half of the loss on frequencies", ("frequency=0.5",), init="the run before", share=0.25),
            Arm("lower rates", ("lr=3e-4", "muon_lr=0.002"), init="the run before", share=0.25),
        ),
        1000,
    ),
    "pretraining": Experiment(
        "Does x4 gain from starting at the trained x2 (the paper's figure 4)?",
        (
            Arm("x2", recipe="paper", settings=_PAPER),
            Arm("x4 from scratch", recipe="paper", settings=_PAPER, scale=4),
            Arm("x4 from x2", recipe="paper", settings=_PAPER, scale=4, init="x2"),
        ),
        3000,
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
        400,
    ),
}
