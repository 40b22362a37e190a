"""Cutaway: open a trained network, find the mechanism behind a behaviour, and test it by intervening."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from cutaway.errors import nearest
from cutaway.verbs import VERBS

__version__ = "0.1.0.dev0"

#: Nouns of the public face and where each lives; the verbs come from their own table. All are loaded when first used, so
#: that `import cutaway` is quick.
_NOUNS: dict[str, str] = {
    **dict.fromkeys(("Network", "Run", "Site", "Tokens"), "cutaway.network"),
    **dict.fromkeys(("Part", "Input", "Edge"), "cutaway.network.parts"),
    "from_transformerlens": "cutaway.network.converting",
    "Behaviour": "cutaway.behaviours",
    "SteeringVector": "cutaway.control",
    "Effects": "cutaway.effects",
    "Explanation": "cutaway.explanations",
    "Claim": "cutaway.claims",
    **dict.fromkeys(("Probe", "ProbeData", "Probing"), "cutaway.probes"),
    "Circuit": "cutaway.circuits",
    **dict.fromkeys(("Algorithm", "algorithm"), "cutaway.algorithms"),
    **dict.fromkeys(("Cases", "cases"), "cutaway.behaviours.cases"),
    **dict.fromkeys(("Budget", "Work"), "cutaway.results"),
    **dict.fromkeys(
        ("Ablate", "Add", "Apply", "Clamp", "Erase", "Freeze", "Interchange", "Patch", "Project", "Scale"),
        "cutaway.interventions",
    ),
}
_PUBLIC: dict[str, str] = {name: verb.where for name, verb in VERBS.items()} | _NOUNS

__all__ = [*_PUBLIC, "__version__"]  # pyright: ignore[reportUnsupportedDunderAll]

if TYPE_CHECKING:
    from cutaway import algorithms as algorithms
    from cutaway import behaviours as behaviours
    from cutaway import calibration as calibration
    from cutaway import circuits as circuits
    from cutaway import claims as claims
    from cutaway import control as control
    from cutaway import effects as effects
    from cutaway import errors as errors
    from cutaway import explanations as explanations
    from cutaway import features as features
    from cutaway import figures as figures
    from cutaway import interventions as interventions
    from cutaway import network as network
    from cutaway import probes as probes
    from cutaway import recipes as recipes
    from cutaway import reports as reports
    from cutaway import results as results
    from cutaway import statistics as statistics
    from cutaway import stream as stream
    from cutaway import sweeps as sweeps
    from cutaway import trials as trials
    from cutaway import verbs as verbs
    from cutaway import zoo as zoo
    from cutaway.algorithms import Algorithm as Algorithm
    from cutaway.algorithms import algorithm as algorithm
    from cutaway.algorithms import test_algorithm as test_algorithm
    from cutaway.algorithms.backups import backups as backups
    from cutaway.algorithms.backups import shared_parts as shared_parts
    from cutaway.algorithms.carried import carried as carried
    from cutaway.algorithms.inputs import input_attribution as input_attribution
    from cutaway.algorithms.intended import intended as intended
    from cutaway.algorithms.passing import passing as passing
    from cutaway.algorithms.proposing import propose_algorithm as propose_algorithm
    from cutaway.algorithms.roles import roles as roles
    from cutaway.behaviours import Behaviour as Behaviour
    from cutaway.behaviours import behaviour as behaviour
    from cutaway.behaviours import performance as performance
    from cutaway.behaviours.cases import Cases as Cases
    from cutaway.behaviours.cases import cases as cases
    from cutaway.circuits import Circuit as Circuit
    from cutaway.circuits import test as test
    from cutaway.circuits import trace as trace
    from cutaway.claims import Claim as Claim
    from cutaway.control import SteeringVector as SteeringVector
    from cutaway.control import difference_of_means as difference_of_means
    from cutaway.control import steer as steer
    from cutaway.effects import Effects as Effects
    from cutaway.effects import ablate as ablate
    from cutaway.effects import attribution_patch as attribution_patch
    from cutaway.effects import pair_effects as pair_effects
    from cutaway.effects import patch as patch
    from cutaway.effects import path_patch as path_patch
    from cutaway.effects import plan as plan
    from cutaway.effects import plan_interventions as plan_interventions
    from cutaway.explanations import Explanation as Explanation
    from cutaway.explanations import explain as explain
    from cutaway.explanations.carriers import feature_effects as feature_effects
    from cutaway.explanations.computation import computation as computation
    from cutaway.features.binding import bind as bind
    from cutaway.features.dashboards import dashboard as dashboard
    from cutaway.features.index import index_features as index_features
    from cutaway.features.labels import label_features as label_features
    from cutaway.features.measures import measure as measure
    from cutaway.features.training.training import plan_training as plan_training
    from cutaway.features.training.training import train_dictionaries as train_dictionaries
    from cutaway.interventions import Ablate as Ablate
    from cutaway.interventions import Add as Add
    from cutaway.interventions import Apply as Apply
    from cutaway.interventions import Clamp as Clamp
    from cutaway.interventions import Erase as Erase
    from cutaway.interventions import Freeze as Freeze
    from cutaway.interventions import Interchange as Interchange
    from cutaway.interventions import Patch as Patch
    from cutaway.interventions import Project as Project
    from cutaway.interventions import Scale as Scale
    from cutaway.network import Network as Network
    from cutaway.network import Run as Run
    from cutaway.network import Site as Site
    from cutaway.network import Tokens as Tokens
    from cutaway.network.converting import from_transformerlens as from_transformerlens
    from cutaway.network.opening import open_network as open  # noqa: F401
    from cutaway.network.scoring import loss as loss
    from cutaway.probes import Probe as Probe
    from cutaway.probes import ProbeData as ProbeData
    from cutaway.probes import Probing as Probing
    from cutaway.probes import leace as leace
    from cutaway.probes import probe as probe
    from cutaway.probes import probe_data as probe_data
    from cutaway.probes import use as use
    from cutaway.stream import logit_attribution as logit_attribution
    from cutaway.stream import read_stream as read_stream


def _rooms() -> frozenset[str]:
    """The public modules, which are reached as `cutaway.errors` without an import of their own."""
    from pkgutil import iter_modules

    return frozenset(m.name for m in iter_modules(__path__) if not m.name.startswith("_") and m.name != "cli")


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        if not name.startswith("_") and name in _rooms():
            return importlib.import_module(f"cutaway.{name}")
        near = nearest(name, [*_PUBLIC, *_rooms()], 1) if not name.startswith("_") else []
        hint = f". Did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"module 'cutaway' has no attribute {name!r}{hint}")
    module, _, attribute = _PUBLIC[name].partition(":")
    value = getattr(importlib.import_module(module), attribute or name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC, *_rooms()})
