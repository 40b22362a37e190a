"""Edge attribution patching and its integrated gradients: two forwards and one backward for every edge at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from cutaway.circuits.methods.options import PositionOptions
from cutaway.circuits.methods.study import Study
from cutaway.circuits.passes.gradients import Backward, at_readers, backward
from cutaway.circuits.passes.outputs import INPUT, At, Outputs, differences, record, whole_write
from cutaway.circuits.scores import Scores
from cutaway.errors import BadInput
from cutaway.network.edits import Edit

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.circuits.methods.tally import Tally
    from cutaway.network import Network
    from cutaway.results import Work

EAP = "Syed, Rager and Conmy 2023 (arXiv 2310.10348), eq. 2: (e_corrupted - e_clean) . dL/de at the clean run"
EAP_IG = (
    "Hanna, Pezzelle and Belinkov 2024 (arXiv 2403.17806), eq. 3: (z'_u - z_u) . 1/m sum_k dL(z' + k/m (z - z'))/dv over "
    "inputs z' + k/m (z - z')"
)
EAP_IG_ACTIVATIONS = (
    "Hanna et al. 2024 and Mueller et al. 2025 (MIB), after Marks et al. 2024: (z'_u - z_u) . 1/m sum_k dL/dv, the output "
    "of u's sublayer at k/m of the way from corrupted to clean"
)
CLEAN_CORRUPTED = "Hanna et al. 2024: as EAP-IG, with the gradients of the clean and the corrupted run alone"


@dataclass(frozen=True)
class EapIgOptions(PositionOptions):
    """Options of EAP with integrated gradients.

    Attributes:
        steps: of the integral over the path from corrupted to clean; each is one forward and backward pass.
    """

    steps: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        require_steps(self.steps)


@dataclass(frozen=True)
class ActivationsOptions(EapIgOptions):
    """Options of EAP with integrated gradients over activations.

    Attributes:
        average: "sublayer", or "all": over the runs of all sublayers, as the published code does.
    """

    average: Literal["sublayer", "all"] = "sublayer"


def require_steps(steps: int) -> None:
    """BadInput where an integral has no step."""
    if steps < 1:
        raise BadInput(f"An integral over {steps} steps is none.", "Use steps=5 or more.")


def _accumulate(
    study: Study, tally: Tally, done: Backward, deltas: Tensor, weight: float, writers: slice | None = None
) -> None:
    """Add -weight * <corrupted - clean, gradient> of one backward pass: what is lost when the edge is corrupted."""
    for stage, slopes in at_readers(study.wiring, done):
        tally.add(stage.before, stage.readers, deltas, slopes, -weight, writers)


def toward(clean: Tensor, corrupted: Tensor, share: float, place: str) -> Edit:
    """The edit that sets a place to `share` of the way from corrupted to clean."""
    mixed = corrupted + share * (clean - corrupted)
    return At(place, lambda value: mixed.to(value))


def eap(net: Network, behaviour: Behaviour, options: PositionOptions, work: Work | None = None) -> Scores:
    """Edge attribution patching: score(u -> v) = -(u_corrupted - u_clean) . dm/d(input of v), at the clean run.

    Syed, Rager and Conmy 2023, eq. 2. Two forward passes and one backward pass give all edges.
    """
    study = Study.of(net, behaviour, options, work)
    for batch in study.batches("eap"):
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score)
        deltas = differences(study.wiring, done.outputs, corrupted, batch.real.to(net.device))
        tally = study.tally(batch, deltas)
        _accumulate(study, tally, done, deltas, 1.0)
        study.keep(batch, tally)
        del corrupted, done, deltas, tally  # let go before the next batch takes its own
    return study.scores("eap", EAP)


def eap_ig(net: Network, behaviour: Behaviour, options: EapIgOptions, work: Work | None = None) -> Scores:
    """EAP with integrated gradients over inputs: the gradient is the mean of those at the inputs z' + k/m (z - z').

    Hanna, Pezzelle and Belinkov 2024, eq. 3; k runs from 1 to m = `steps`, z' is the corrupted embedding, z the clean one.
    """
    study, steps = Study.of(net, behaviour, options, work), options.steps
    for batch in study.batches("eap-ig"):
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score)
        clean = done.outputs.values[INPUT]
        deltas = differences(study.wiring, done.outputs, corrupted, batch.real.to(net.device))
        tally = study.tally(batch, deltas)
        _accumulate(study, tally, done, deltas, 1 / steps)
        for k in range(1, steps):
            edit = toward(clean, corrupted.values[INPUT], k / steps, INPUT)
            done = backward(study.wiring, batch.clean, batch.positions, batch.score, [edit])
            _accumulate(study, tally, done, deltas, 1 / steps)
        study.keep(batch, tally)
        del corrupted, done, clean, deltas, tally  # let go before the next batch takes its own
    return study.scores("eap-ig", EAP_IG)


def clean_corrupted(
    net: Network, behaviour: Behaviour, options: PositionOptions, work: Work | None = None
) -> Scores:
    """EAP with the mean of the gradients at the clean and at the corrupted run (Hanna et al. 2024)."""
    study = Study.of(net, behaviour, options, work)
    for batch in study.batches("clean-corrupted"):
        done = backward(study.wiring, batch.clean, batch.positions, batch.score)
        other = backward(study.wiring, batch.corrupted, batch.positions, batch.score)
        deltas = differences(study.wiring, done.outputs, other.outputs, batch.real.to(net.device))
        tally = study.tally(batch, deltas)
        for each in (done, other):
            _accumulate(study, tally, each, deltas, 0.5)
        study.keep(batch, tally)
        del done, other, each, deltas, tally  # let go before the next batch takes its own
    return study.scores("clean-corrupted", CLEAN_CORRUPTED)


def eap_ig_activations(
    net: Network, behaviour: Behaviour, options: ActivationsOptions, work: Work | None = None
) -> Scores:
    """EAP with integrated gradients over activations: score(u -> v) takes the mean gradient at v over runs on the
    clean prompt in which the sublayer of u writes corrupted + k/m (clean - corrupted), k = 1 ... m.

    Hanna et al. 2024; the method that leads in MIB (Mueller et al. 2025). It takes m backward passes per sublayer. The
    published code averages every gradient over the runs of *all* sublayers instead, also those in which the path to v was
    cut; `average="all"` does that.
    """
    study, steps = Study.of(net, behaviour, options, work), options.steps
    stages = {s.write: s for s in study.wiring.stages if s.kind != "logits"}
    together = options.average == "all"
    for batch in study.batches("eap-ig-activations"):
        corrupted, _ = record(study.wiring, batch.corrupted)
        done = backward(study.wiring, batch.clean, batch.positions, batch.score)
        clean: Outputs = done.outputs
        deltas = differences(study.wiring, clean, corrupted, batch.real.to(net.device))
        tally = study.tally(batch, deltas)
        # k = m is the clean run, the same for all sublayers
        _accumulate(study, tally, done, deltas, 1 / steps)
        for number, place in enumerate([INPUT, *stages]):
            stage, ends = stages.get(place), (clean.values[place], corrupted.values[place])
            writers = slice(0, 1) if stage is None else stage.writers
            from_clean, from_corrupted = ends if stage is None else (whole_write(stage, end) for end in ends)
            for k in range(1, steps):
                edit = toward(from_clean, from_corrupted, k / steps, place)
                done = backward(study.wiring, batch.clean, batch.positions, batch.score, [edit])
                weight, of = (1 / (steps * (len(stages) + 1)), None) if together else (1 / steps, writers)
                _accumulate(study, tally, done, deltas, weight, of)
            study.work.step("EAP-IG over activations", number + 1, len(stages) + 1)
        study.keep(batch, tally)
    return study.scores("eap-ig-activations", EAP_IG_ACTIVATIONS)
