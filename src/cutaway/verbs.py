"""The table of verbs: everything that can be done with a network, told once. Readers of it are the public face
(`cutaway.patch`), the command line, and whatever else offers the verbs to somebody.

A row names the function, what it takes and what it gives. Its parameters are those of the function, and what they mean is
what the function's docstring says under `Args:`; both are read from the source, so that telling them costs no import.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from cutaway.errors import NotFound, did_you_mean, require_known

#: Parameters that every verb shares; no command counts them as its own.
SHARED = ("seed", "work")


@dataclass(frozen=True)
class Parameter:
    """One keyword of a verb.

    Attributes:
        name: as it is passed.
        annotation: its type as written, e.g. `int | None`.
        default: as written; `REQUIRED` where there is none.
        says: what it means, from the docstring.
    """

    name: str
    annotation: str
    default: Any
    says: str


class _Required:
    def __repr__(self) -> str:
        return "REQUIRED"


REQUIRED = _Required()


@dataclass(frozen=True)
class Verb:
    """One row: a function of (network, question, keywords) that gives a result.

    Attributes:
        name: what the public face and the command line call it.
        where: "module:function", the module that defines it.
        says: what it does, in one sentence.
        takes: what comes before the keywords, in order.
        result: name of the kind in `results.KINDS`; "" where it gives something else (a network, a plan).
        shown: keywords that the command line offers as options of their own, at most eight beside those of a behaviour.
        more: where further keywords are declared: "module:Dataclass" by the name of the parameter that takes it.
        command: the command's name; "" where there is none.
        spelled: how the command line spells a keyword where it is not its name, e.g. `--from`.
        plan: where the function is that says what a call will cost, "" where there is none.
        n: how many examples of a behaviour the command takes unless it is told.
    """

    name: str
    where: str
    says: str
    takes: tuple[str, ...] = ("net",)
    result: str = ""
    shown: tuple[str, ...] = ()
    more: tuple[tuple[str, str], ...] = ()
    command: str = ""
    spelled: tuple[tuple[str, str], ...] = ()
    plan: str = ""
    n: int = 64

    def find(self) -> Any:
        """The function; its module is loaded now."""
        import importlib

        module, _, name = self.where.partition(":")
        return getattr(importlib.import_module(module), name)

    def parameters(self) -> tuple[Parameter, ...]:
        """Its keywords, without those that all verbs share."""
        return tuple(p for p in signature(self.where) if p.name not in (*self.takes, *SHARED))

    def options(self) -> tuple[Parameter, ...]:
        """What a command offers of it: its keywords, and what may come before them and is shown."""
        taken = {*self.takes, *SHARED} - set(self.shown)
        return tuple(p for p in signature(self.where) if p.name not in taken)

    def check(self, given: Iterable[str]) -> None:
        """Raise `UnknownOption` for a keyword that the verb does not have, with the nearest one.

        A verb that takes the options of a method, which differ from method to method, refuses them itself.
        """
        names = [p.name for p in self.parameters()]
        if not any(name.startswith("**") for name in names):
            require_known(given, [*names, *SHARED], self.name)


_BEHAVIOUR = ("net", "behaviour")
_PLAN = "cutaway.effects.patching:plan"

#: Every verb, in the order in which one works.
# fmt: off
VERBS: dict[str, Verb] = {
    row.name: row
    for row in (
        Verb("open", "cutaway.network.opening:open_network", "Open a network: find its anatomy, and certify it.",
             ("model", "tokenizer"), command="open"),
        Verb("loss", "cutaway.network.scoring:loss",
             "The loss on texts: how surprised the network is by each next token, with edits beside without.",
             ("net", "texts"), "loss", ("column",), command="loss"),
        Verb("behaviour", "cutaway.behaviours.making:behaviour",
             "Contrast pairs for a network, from a name or a file.", ("source", "net")),
        Verb("performance", "cutaway.behaviours.checks:performance", "Does the network do the behaviour at all?",
             _BEHAVIOUR, "performance"),
        Verb("patch", "cutaway.effects.patching:patch",
             "Activation patching: which layers, positions or heads matter, with intervals.", _BEHAVIOUR, "effects",
             ("at", "by", "direction", "layers"), command="patch", plan=_PLAN),
        Verb("ablate", "cutaway.effects.patching:ablate",
             "Ablation: what the behaviour loses without each part, with intervals.", _BEHAVIOUR, "effects",
             ("at", "by", "how", "over", "layers"), command="ablate", plan=_PLAN),
        Verb("attribution_patch", "cutaway.effects.attribution:attribution_patch",
             "Attribution patching: what patching every cell would find, estimated from one gradient.", _BEHAVIOUR,
             "effects", ("at", "by", "direction", "layers", "steps"), command="attribution"),
        Verb("path_patch", "cutaway.effects.paths:path_patch",
             "Exact path patching: what each part tells each other directly.", _BEHAVIOUR, "effects",
             ("senders", "to", "direction"), command="paths", spelled=(("senders", "--from"),)),
        Verb("pair_effects", "cutaway.effects.pairs:pair_effects",
             "What two parts do together beyond what each does alone.", _BEHAVIOUR, "effects"),
        Verb("plan", _PLAN, "What a sweep will cost, before it is run.", _BEHAVIOUR),
        Verb("plan_interventions", "cutaway.effects.planned:plan_interventions",
             "What a list of interventions will cost, before any of them is made.",
             ("net", "behaviour", "interventions")),
        Verb("trace", "cutaway.circuits.tracing:trace", "Find the circuit of a behaviour on its discovery pairs.",
             _BEHAVIOUR, "circuit", ("method", "edges", "nodes", "select", "threshold"), command="trace",
             spelled=(("method", "-m"),)),
        Verb("test", "cutaway.circuits.testing:examine",
             "Test a circuit on held-out pairs beside random circuits and other controls; judge, and report.",
             ("net", "circuit", "behaviour"), "circuit-test", ("controls",),
             (("limits", "cutaway.circuits.limits:CircuitLimits"),), command="test"),
        Verb("logit_attribution", "cutaway.stream.attribution:logit_attribution",
             "Who wrote the answer: what each part adds to a logit, or to the difference of two.", ("net", "text"),
             "attribution", ("target", "foil", "by", "pos", "first_token"), command="stream",
             spelled=(("target", "-t"), ("foil", "-f"))),
        Verb("expand_paths", "cutaway.stream.paths:expand_paths",
             "Every path to the answer through so many heads: what each adds to a logit, or to the difference of two.",
             ("net", "text"), "path-expansion", ("target", "foil", "depth", "pos", "first_token"), command="expand",
             spelled=(("target", "-t"), ("foil", "-f"))),
        Verb("patterns", "cutaway.stream.patterns:patterns",
             "Where every head looks in one text: all patterns at once, with their tokens.", ("net", "text"),
             "patterns", ("layers", "heads", "weighted"), command="patterns"),
        Verb("side_by_side", "cutaway.stream.side_by_side:side_by_side",
             "Two prompts side by side: patterns, stream, lens, and what comes next.", ("net", "text", "other"),
             "side-by-side", ("target", "foil", "top"), command="compare-prompts",
             spelled=(("target", "-t"), ("foil", "-f"))),
        Verb("induction_heads", "cutaway.stream.induction:induction_heads",
             "Induction heads: found in repeated random tokens, and tested by taking them away.", ("net",),
             "induction-heads", ("top", "n", "length"), command="induction-heads"),
        Verb("read_stream", "cutaway.stream.record:read_stream", "The residual stream of a text, part by part.",
             ("net", "text")),
        Verb("read_lens", "cutaway.stream.lenses.reading:read_lens",
             "What each layer's stream says about the next token.", ("net", "lens", "text"), "reading"),
        Verb("top_examples", "cutaway.features.top_examples:top_examples",
             "Where in many texts neurons, heads or directions are strongest, weakest, and in between.",
             ("net", "texts"), "top-examples", ("of", "k", "context", "special"), command="top-examples"),
        Verb("activations", "cutaway.features.activations:activations",
             "Write the values of sites at every token of many texts to disk; read them back without loading all.",
             ("net", "texts"), "activations", ("at", "special"), command="activations"),
        Verb("bind", "cutaway.features.binding:bind",
             "Does a dictionary of features belong to this site of this network, read in this way?",
             ("net", "dictionary", "texts"), "binding"),
        Verb("measure", "cutaway.features.measures.measuring:measure",
             "How well does a dictionary reconstruct, beside principal components, neurons, random and frozen dictionaries?",
             ("net", "dictionary", "texts"), "dictionary-measures"),
        Verb("index_features", "cutaway.features.index.making:index_features",
             "Where in many texts features of any kind are active, all of them in one pass, on disk.",
             ("net", "features", "texts"), "feature-index"),
        Verb("label_features", "cutaway.features.labels.verb:label_features",
             "Name features by readable predictors of their activation, scored on texts not seen, beside controls.",
             ("net", "index"), "feature-labels"),
        Verb("train_dictionaries", "cutaway.features.training.training:train_dictionaries",
             "Train dictionaries of features on sites of a network, with twins beside them, measured on texts held out.",
             ("net", "texts"), "dictionary-training"),
        Verb("plan_training", "cutaway.features.training.training:plan_training",
             "What training dictionaries will take, before it begins.", ("net", "texts")),
        Verb("dashboard", "cutaway.features.dashboards.dashboard:dashboard",
             "All features of an index on one page that needs no server, found by name, label or token.",
             ("net", "index")),
        Verb("probe_data", "cutaway.probes.data.tables:probe_data", "Labelled texts or inputs for probes.",
             ("source",)),
        Verb("probe", "cutaway.probes.map.pipeline:probe", "Where a label is encoded beyond the controls.",
             ("net", "data"), "probing"),
        Verb("use", "cutaway.probes.use.pipeline:use", "Does the network use what a probe finds?",
             ("net", "probing", "data"), "use"),
        Verb("leace", "cutaway.probes.use.erasure:leace", "Erase a label from a representation.", ("net", "data"),
             "eraser"),
        Verb("test_algorithm", "cutaway.algorithms.testing:examine_algorithm",
             "Does a network compute what an algorithm says, in the places named for its variables?",
             ("net", "cases", "algorithm", "where"), "algorithm-test"),
        Verb("difference_of_means", "cutaway.control.means:difference_of_means",
             "The direction from one set of texts to another at a site, and how well it tells held-out texts apart.",
             ("net", "positive", "negative"), "direction"),
        Verb("steer", "cutaway.control.steering:steer",
             "What a network writes while a direction is added, strength by strength, beside a random one.",
             ("net", "prompts", "direction"), "steering"),
        Verb("feature_effects", "cutaway.explanations.carriers:feature_effects",
             "Which features (or neurons) carry a behaviour, tested by intervening on held-out prompts.", _BEHAVIOUR,
             "feature-effects", ("at", "random"), command="feature-effects", n=128),
        Verb("explain", "cutaway.explanations.pipeline:explain",
             "Find the parts that carry a behaviour, test them on held-out prompts, and write a report.", _BEHAVIOUR,
             "explanation", ("controls", "depth", "feared"), (("limits", "cutaway.explanations.limits:SearchLimits"),),
             command="explain", n=128),
        Verb("computation", "cutaway.explanations.computation.verb:computation",
             "What is computed: what parts carry and do, how variables move, as which algorithm; told and tested.",
             ("net", "cases"), "computation", ("depth", "variables", "parts", "controls", "feared"),
             command="computation", n=128),
        Verb("carried", "cutaway.algorithms.carried.verb:carried",
             "What each part carries: one variable of the prompt is exchanged at a time, part by part, and tested.",
             ("net", "cases", "variables"), "carried-variables", ("variables", "parts", "spans", "controls"),
             (("limits", "cutaway.algorithms.carried.limits:CarriedLimits"),), command="carried", n=128),
        Verb("passing", "cutaway.algorithms.passing.verb:passing",
             "How a variable moves from place to place: what each place brings through each later one, tested.",
             ("net", "cases", "carried"), "passing", ("controls",),
             (("limits", "cutaway.algorithms.passing.limits:PassingLimits"),), command="passing", n=128),
        Verb("backups", "cutaway.algorithms.backups.verb:backups",
             "Which parts stand in for which: remove one after another, and see whose effect grows.",
             ("net", "behaviour", "parts"), "backups", ("parts", "controls"),
             (("limits", "cutaway.algorithms.backups.limits:BackupLimits"),), command="backups", n=64),
        Verb("shared_parts", "cutaway.algorithms.backups.sharing:shared_parts",
             "Which parts two behaviours share, and what one loses by what the other uses.",
             ("net", "one", "other"), "shared-parts"),
        Verb("roles", "cutaway.algorithms.roles.verb:roles",
             "What kind of work each part does: mover, induction, lookup, backup, ..., each role by three witnesses.",
             ("net", "cases", "parts"), "roles", ("parts", "variables", "controls"),
             (("limits", "cutaway.algorithms.roles.limits:RoleLimits"),), command="roles", n=128),
        Verb("propose_algorithm", "cutaway.algorithms.proposing.verb:propose_algorithm",
             "An algorithm proposed from what parts carry, tested on held-out prompts beside others that could be meant.",
             ("net", "cases", "carried"), "proposed-algorithm", ("controls",),
             (("limits", "cutaway.algorithms.proposing.limits:ProposalLimits"),), command="algorithm", n=128),
        Verb("input_attribution", "cutaway.algorithms.inputs.verb:input_attribution",
             "Which input tokens an answer rests on, held against what exchanging the variables there does.",
             ("net", "question"), "input-attribution", ("method", "baseline", "window", "controls"),
             (("limits", "cutaway.algorithms.inputs.limits:InputLimits"),), command="inputs", n=64),
        Verb("intended", "cutaway.algorithms.intended.verb:intended_test",
             "Does a network compute what is intended, or what gives the same answers on the prompts at hand?",
             ("net", "cases", "intended", "feared"), "intended"),
        Verb("load", "cutaway.results.kinds:load", "Open any saved result.", ("path",)),
    )
}
# fmt: on


def verb(name: str) -> Verb:
    """The verb of this name; `NotFound` with the nearest names.

    >>> verb("patch").result
    'effects'
    """
    if name not in VERBS:
        raise NotFound(f"There is no verb {name!r}.", did_you_mean(name, VERBS, 3))
    return VERBS[name]


@cache
def signature(where: str) -> tuple[Parameter, ...]:
    """All parameters of a function, read from its source without loading it.

    >>> [p.name for p in signature("cutaway.results.kinds:load")]
    ['path']
    """
    module, _, name = where.partition(":")
    node = _definition(module, name)
    words = arguments_in(ast.get_docstring(node) or "")
    spec = node.args
    positional = [*spec.posonlyargs, *spec.args]
    defaults: list[Any] = [None] * (len(positional) - len(spec.defaults)) + list(spec.defaults)
    pairs = [*zip(positional, defaults, strict=True), *zip(spec.kwonlyargs, spec.kw_defaults, strict=True)]
    bag = [spec.kwarg] if spec.kwarg is not None else []
    return tuple(
        Parameter(
            f"**{a.arg}" if a in bag else a.arg,
            ast.unparse(a.annotation) if a.annotation else "",
            _value(d),
            words.get(a.arg, ""),
        )
        for a, d in [*pairs, *((a, None) for a in bag)]
    )


def _definition(module: str, name: str) -> ast.FunctionDef:
    source = Path(__file__).parent.joinpath(*module.split(".")[1:]).with_suffix(".py")
    for node in ast.parse(source.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return node
    raise NotFound(f"{module} defines no function {name!r}.", "Name the module that defines it in VERBS.")


def _value(node: ast.expr | None) -> Any:
    if node is None:
        return REQUIRED
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ast.unparse(node)


def arguments_in(docstring: str) -> dict[str, str]:
    """What a docstring says of each argument, from its `Args:` section; several names may share an entry.

    >>> arguments_in("Does it.\\n\\nArgs:\\n    at: the site,\\n        or a path.\\n    low, high: bounds.")
    {'at': 'the site, or a path.', 'low': 'bounds.', 'high': 'bounds.'}
    """
    said: dict[str, str] = {}
    names: list[str] = []
    inside = False
    for line in inspect.cleandoc(docstring).splitlines():
        if line.rstrip() == "Args:":
            inside = True
        elif inside and line and not line.startswith(" "):
            break
        elif inside and line.strip():
            head, colon, rest = line.strip().partition(": ")
            begins = line.startswith("    ") and not line.startswith("     ")
            if begins and colon and all(n.strip().isidentifier() for n in head.split(",")):
                names, text = [n.strip() for n in head.split(",")], rest
            else:
                text = line.strip()
            for name in names:
                said[name] = f"{said.get(name, '')} {text}".strip()
    return said
