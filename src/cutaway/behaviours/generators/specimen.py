"""What a specimen of the zoo does, as a behaviour: `behaviour("zoo:induction-gpt2", net)`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cutaway.behaviours.data import Behaviour
from cutaway.behaviours.examples import Example, assemble
from cutaway.zoo.loaders import split
from cutaway.zoo.registry import specimen as find
from cutaway.zoo.tasks import TaskPair

if TYPE_CHECKING:
    from cutaway.network import Network


def specimen(name: str, net: Network, n: int = 128, seed: int = 0) -> Behaviour:
    """n fresh contrast pairs of a specimen (or of the specimen that a twin belongs to).

    The network may be another one of the same vocabulary. Raises NotFound for an unknown name.
    """
    what = find(split(name)[0])
    return of_pairs(f"zoo:{what.name}", what.task.pairs(n, seed), net, what.task.words, seed)


def of_pairs(
    name: str, pairs: list[TaskPair], net: Network, words: tuple[str, ...] = (), seed: int = 0
) -> Behaviour:
    """A behaviour of pairs of token ids; `words` are shown for them, or what the tokenizer says.

    A pair that was drawn twice is kept once.
    """
    pairs = list({(p.clean, p.corrupted): p for p in pairs}.values())

    def show(ids: tuple[int, ...]) -> str:
        return " ".join(words[i] for i in ids) if words else net.decode(list(ids))

    examples = []
    for p in pairs:
        right, wrong = (tuple((show((token,)), (token,)) for token in side) for side in (p.right, p.wrong))
        spans = {span: p.spans[span] for span in sorted(p.spans)}
        texts = show(p.clean), show(p.corrupted)
        examples.append(Example(*texts, p.clean, p.corrupted, right, wrong, spans, p.template, p.answer_pos))
    return assemble(name, examples, seed=seed, from_text=False)
