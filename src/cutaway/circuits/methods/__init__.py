"""Methods of discovery, each a function (network, behaviour, options, work) -> scores, in one table."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

from cutaway.circuits.methods.options import MethodOptions
from cutaway.errors import BadInput, NotFound, UnknownOption, did_you_mean, require_known

if TYPE_CHECKING:
    from cutaway.behaviours import Behaviour
    from cutaway.circuits.scores import Scores
    from cutaway.network import Network
    from cutaway.results import Work


class Method(Protocol):
    """A method of discovery: a function of a network, a behaviour, its options and the work."""

    __name__: str

    def __call__(self, net: Network, behaviour: Behaviour, options: Any, work: Work | None = None) -> Scores:
        """The scores of every edge or node of the network for the behaviour."""
        ...


@dataclass(frozen=True)
class MethodRow:
    """One row of the table of methods.

    Attributes:
        module: of this folder; it is loaded when the method is used.
        function: the method in it.
        options: the class of its options in it.
        grain: what it scores.
        says: what a score is, in one line.
        source: who published it.
    """

    module: str
    function: str
    options: str
    grain: Literal["edge", "node"]
    says: str
    source: str

    def find(self, name: str) -> Any:
        """A name of its module."""
        return getattr(importlib.import_module(f"{__name__}.{self.module}"), name)


#: Every method, by the name that `trace` takes.
METHODS: dict[str, MethodRow] = {
    "eap": MethodRow("attribution", "eap", "PositionOptions", "edge",
        "difference of activations times gradient at the clean run", "Syed et al. 2023"),
    "eap-ig": MethodRow("attribution", "eap_ig", "EapIgOptions", "edge",
        "the same with the gradient averaged over inputs from corrupted to clean", "Hanna et al. 2024"),
    "eap-ig-activations": MethodRow("attribution", "eap_ig_activations", "ActivationsOptions", "edge",
        "averaged over activations of the writer's sublayer instead", "Hanna et al. 2024; Mueller et al. 2025"),
    "clean-corrupted": MethodRow("attribution", "clean_corrupted", "PositionOptions", "edge",
        "gradients of both runs", "Hanna et al. 2024"),
    "atp": MethodRow("nodes", "atp", "ScoreOptions", "node",
        "attribution of nodes", "Nanda 2023; Syed et al. 2023"),
    "node-ig": MethodRow("nodes", "node_ig", "NodeIgOptions", "node",
        "attribution of nodes, integrated over inputs", "Hanna et al. 2024"),
    "neurons": MethodRow("nodes", "neurons", "ScoreOptions", "node",
        "attribution of nodes and of every MLP's neurons", "Nanda 2023"),
    "atp-star": MethodRow("atp_star", "atp_star", "ScoreOptions", "node",
        "attribution of nodes, and of queries and keys: softmax recomputed, GradDrop", "Kramár et al. 2024"),
    "relp": MethodRow("relp", "relp", "RelpOptions", "edge",
        "relevance coefficients instead of gradients", "Rezaei Jafari et al. 2025"),
    "flow": MethodRow("flow", "information_flow", "PositionOptions", "edge",
        "how near the writer is to what is read; no metric", "Ferrando and Voita 2024"),
    "node-patching": MethodRow("exact", "node_patching", "ScoreOptions", "node",
        "exact: the node's output alone corrupted", "Wang et al. 2023"),
    "path-patching": MethodRow("exact", "path_patching", "ScoreOptions", "edge",
        "exact: the edge alone corrupted", "Goldowsky-Dill et al. 2023"),
    "acdc": MethodRow("acdc", "acdc", "AcdcOptions", "edge",
        "edges taken out greedily from the logits down", "Conmy et al. 2023"),
    "mask-edges": MethodRow("masks", "edge_masks", "MaskOptions", "edge",
        "learned masks, started from attribution scores", "Li and Janson 2024; Louizos et al. 2018"),
    "mask-nodes": MethodRow("masks", "node_masks", "MaskOptions", "node",
        "the same for nodes", "Li and Janson 2024; Louizos et al. 2018"),
    "ensemble": MethodRow("ensemble", "ensemble", "EnsembleOptions", "edge",
        "several methods in one", "Mueller et al. 2025"),
    "random": MethodRow("ensemble", "random_scores", "MethodOptions", "edge",
        "random numbers: what any method must beat", "none"),
}  # fmt: skip
_OTHER_NAMES = {
    "eap-ig-inputs": "eap-ig", "information-flow-routes": "flow", "ifr": "flow", "atp*": "atp-star",
    "activation-patching": "node-patching", "eap-ig-act": "eap-ig-activations", "ugs": "mask-edges",
}  # fmt: skip


def method_name(name: str) -> str:
    """The name in the table that another spelling means; NotFound with the nearest names.

    >>> method_name("EAP_IG"), method_name("AtP*")
    ('eap-ig', 'atp-star')
    """
    key = str(name).strip().lower().replace("_", "-").replace(" ", "-")
    key = _OTHER_NAMES.get(key, key)
    if key not in METHODS:
        raise NotFound(f"There is no method {name!r}.", did_you_mean(key, METHODS, 3))
    return key


def method(name: str) -> Method:
    """The method of this name; NotFound with the nearest names.

    >>> method("eap_ig").__name__
    'eap_ig'
    """
    row = METHODS[method_name(name)]
    return cast(Method, row.find(row.function))


def option_names(name: str) -> tuple[str, ...]:
    """The options that a method has.

    >>> option_names("random")
    ('ablation', 'seed')
    """
    row = METHODS[method_name(name)]
    return tuple(option.name for option in fields(row.find(row.options)))


def known_options(name: str, wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Of what is wanted, what the method has as an option.

    >>> known_options("random", {"seed": 3, "steps": 5})
    {'seed': 3}
    """
    return {option: value for option, value in wanted.items() if option in option_names(name)}


def options_of(
    name: str,
    options: MethodOptions | None = None,
    given: Mapping[str, Any] | None = None,
    known: tuple[str, ...] = (),
) -> MethodOptions:
    """A method's options from an object, or from what was given by name.

    known: names that the caller takes beside the method's, to be offered for a misspelt one.

    Raises UnknownOption for an option that the method does not have (it says which methods do, or the nearest name),
    BadInput for a value of the wrong type, and where both an object and names are given.
    """
    name = method_name(name)
    row, given = METHODS[name], dict(given or {})
    kind = row.find(row.options)
    if options is not None:
        if given:
            raise BadInput(f"Both options=... and {', '.join(given)} were given.", "Give one or the other.")
        if type(options) is not kind:
            raise UnknownOption(
                f"{name} takes {kind.__name__}, not {type(options).__name__}.",
                f"Its options: {', '.join(option_names(name))}.",
            )
        return options
    mine = option_names(name)
    for option in given:
        if option not in mine and (others := [other for other in METHODS if option in option_names(other)]):
            raise UnknownOption(
                f"{name} does not read {option!r}.", f"It is an option of {', '.join(others)}."
            )
    require_known(given, (*mine, *known), name)
    return cast(MethodOptions, kind(**given))


def score(
    net: Network,
    behaviour: Behaviour,
    *,
    method: str = "eap-ig",
    options: MethodOptions | None = None,
    work: Work | None = None,
    **given: Any,
) -> Scores:
    """The scores of a method for every edge or node, without choosing a circuit.

    options: the method's options, as an object or by name (`steps=10`). Raises as `trace` does.
    """
    chosen = options_of(method, options, given, ("method", "options", "work"))
    row = METHODS[method_name(method)]
    return row.find(row.function)(net, behaviour, chosen, work)


__all__ = [
    "METHODS", "Method", "MethodOptions", "MethodRow", "known_options", "method", "method_name", "option_names",
    "options_of", "score",
]  # fmt: skip
