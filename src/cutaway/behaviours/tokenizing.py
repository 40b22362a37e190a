"""Text to tokens as contrast pairs need it: answers as they follow a prompt, words found among tokens."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.behaviours.data import Ids, Span
from cutaway.errors import BadBehaviour, BadInput
from cutaway.network.texts import continuation_ids, require_characters

if TYPE_CHECKING:
    from cutaway.network import Network


def tokenizer_of(net: Network, name: str) -> Any:
    """The network's tokenizer; BadInput when it has none."""
    if net.tokenizer is None:
        raise BadInput(
            f"{name!r} is made of words, and this network was opened without a tokenizer.",
            "Pass tokenizer=... to cutaway.open, or use 'induction', or give token ids.",
        )
    return net.tokenizer


def encode(net: Network, texts: Sequence[str], special: bool = True) -> list[Ids]:
    """Token ids of each text as the network is given them, without padding; with the special tokens that the tokenizer
    adds, unless the texts hold them already.
    """
    tokens = net.encode(list(texts), add_special_tokens=special)
    return [tuple(tokens.ids[row][tokens.mask[row]].tolist()) for row in range(len(texts))]


def _bare(tokenizer: Any, text: str) -> list[int]:
    require_characters(text)
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def continuation(net: Network, prompt: str, answer: str) -> Ids:
    """The tokens of `answer` where it follows `prompt`; BadBehaviour when the two melt into one token or it is unknown."""
    tokenizer = tokenizer_of(net, answer)
    start, whole = _bare(tokenizer, prompt), _bare(tokenizer, prompt + answer)
    if whole[: len(start)] != start or len(whole) == len(start):
        raise BadBehaviour(
            f"The answer {answer!r} does not begin with a token of its own after {prompt[-40:]!r}.",
            "Put the space at the start of the answer, not at the end of the prompt.",
        )
    ids = tuple(whole[len(start) :])
    if tokenizer.unk_token_id is not None and tokenizer.unk_token_id in ids:
        raise BadBehaviour(
            f"The tokenizer does not know the answer {answer!r}.", "Choose an answer that it knows."
        )
    return ids


class KnownWords:
    """Which words a tokenizer knows as one token, and how many tokens the others take (after a space).

    Generators ask it for words and frames that suit the tokenizer at hand.

    Attributes:
        name: of the behaviour that asks, for its errors.
        tokenizer: the network's.
    """

    def __init__(self, net: Network, name: str) -> None:
        self.name = name
        self.tokenizer = tokenizer_of(net, name)
        self._sizes: dict[str, int] = {}

    def size(self, word: str) -> int:
        """Tokens of a word in the middle of a sentence."""
        if word not in self._sizes:
            self._sizes[word] = len(continuation_ids(self.tokenizer, f" {word}"))
        return self._sizes[word]

    def single(self, words: Iterable[str], least: int, what: str) -> tuple[str, ...]:
        """The words that are one token; BadBehaviour, naming the others, when they are fewer than `least`."""
        pool = tuple(words)
        kept = tuple(w for w in pool if self.size(w) == 1)
        if len(kept) < least:
            missing = [w for w in pool if w not in kept]
            raise BadBehaviour(
                f"{self.name!r} needs {least} {what} that are single tokens, and this tokenizer has "
                f"{len(kept)} ({', '.join(kept) or 'none'}); not single: {_some(missing)}.",
                "Use a tokenizer that knows them, or give your own words.",
            )
        return kept

    def even(self, words: Iterable[str], least: int, what: str) -> tuple[str, ...]:
        """Words of one common token count, single tokens if there are enough; BadBehaviour when there is no such count."""
        by_size: dict[int, list[str]] = {}
        pool = tuple(words)
        for word in pool:
            by_size.setdefault(self.size(word), []).append(word)
        if len(by_size.get(1, ())) >= least:
            return tuple(by_size[1])
        best = max(by_size.values(), key=len)
        if len(best) < least:
            raise BadBehaviour(
                f"{self.name!r} needs {least} {what} of as many tokens as each other, and this tokenizer "
                f"gives {', '.join(f'{w} {self.size(w)}' for w in pool[:12])}.",
                "Use a tokenizer that knows them, or give your own words.",
            )
        return tuple(best)

    def pieces(self, template: str) -> float:
        """Tokens for each word of a template outside its slots: 1.0 where the tokenizer knows every word."""
        words = " ".join(piece.split("}")[-1] for piece in template.split("{")).split()
        return len(_bare(self.tokenizer, " ".join(words))) / max(len(words), 1)

    def suited(self, templates: Sequence[str], keep: int = 4) -> tuple[str, ...]:
        """The templates whose words this tokenizer cuts up least (its training text is likely to have held them).

        All within a quarter of the best one's tokens per word, and at least `keep` of them, in their own order.
        """
        scored = sorted((self.pieces(template), i) for i, template in enumerate(templates))
        limit = max(scored[0][0] * 1.25, scored[min(keep, len(scored)) - 1][0])
        return tuple(templates[i] for i in sorted(i for score, i in scored if score <= limit))


def _some(words: Sequence[str], most: int = 12) -> str:
    return ", ".join(words[:most]) + (", ..." if words[most:] else "")


def token_spans(net: Network, text: str, ids: Ids, chars: dict[str, Span]) -> dict[str, Span]:
    """Token ranges of character ranges of a text; BadBehaviour when one is not found among the tokens."""
    offsets = _offsets(net, text, ids)
    spans: dict[str, Span] = {}
    for name, (start, end) in chars.items():
        hit = [i for i, (a, b) in enumerate(offsets) if a < end and b > start and a < b]
        if not hit:
            raise BadBehaviour(
                f"The words {text[start:end]!r} were not found in {text!r}.", "Name words of the prompt."
            )
        spans[name] = (hit[0], hit[-1] + 1)
    return spans


def _offsets(net: Network, text: str, ids: Ids) -> list[Span]:
    """Character range of each token: as the tokenizer reports it, else by encoding ever longer parts of the text."""
    tokenizer = net.tokenizer
    if tokenizer is not None and getattr(tokenizer, "is_fast", False):
        for special in (True, False):
            coded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=special)
            extra = len(ids) - len(coded["input_ids"])
            if (extra == 0 or (extra > 0 and not special)) and tuple(coded["input_ids"]) == ids[extra:]:
                return [(0, 0)] * extra + [(int(a), int(b)) for a, b in coded["offset_mapping"]]
    bare_ids = _bare(tokenizer, text)
    extra = len(ids) - len(bare_ids)
    if extra < 0 or tuple(bare_ids) != ids[extra:]:
        raise BadBehaviour(
            f"The tokens of {text!r} are not those of its words.", "Give spans as token ranges."
        )
    ends, length = [], 0
    for count in range(1, len(bare_ids) + 1):
        while length < len(text) and len(_bare(tokenizer, text[:length])) < count:
            length += 1
        ends.append(length)
    return [(0, 0)] * extra + list(zip([0, *ends[:-1]], ends, strict=True))
