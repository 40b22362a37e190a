"""Contrast pairs of images (or of any other input that is no text): classes as answers, the same metrics and splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cutaway.behaviours.data import Behaviour, Ids, ItemPairs
from cutaway.behaviours.examples import Answer, Example, assemble
from cutaway.behaviours.metrics import METRICS, Metric
from cutaway.errors import BadBehaviour, BadInput


@dataclass(frozen=True, eq=False)
class ImagePairs:
    """A source of contrast pairs: two images each, and the class that tells them apart.

    Give it to `cutaway.behaviour`, which checks that the network does it. The corrupted image is another class's, or an
    edited copy of the clean one.

    Attributes:
        clean: [n c y x], prepared as the network takes them.
        corrupted: of the same shape.
        right: the class of each clean image, by number or by its name in `classes`.
        wrong: the class that it is set against, usually that of the corrupted image.
        classes: names of the classes in the order of the logits; left empty, those of the model's configuration
            (`id2label`) where it names them, else numbers.
        name: of the behaviour.
        template: a label for each pair: pairs that share one are a cluster of the intervals; empty: none share one.

    >>> pairs = ImagePairs(torch.rand(4, 3, 8, 8), torch.rand(4, 3, 8, 8), ["cat"] * 4, ["dog"] * 4, ["cat", "dog"])
    >>> pairs.behaviour().n
    4
    """

    clean: Tensor
    corrupted: Tensor
    right: Sequence[int | str]
    wrong: Sequence[int | str]
    classes: Sequence[str] = ()
    name: str = "images"
    template: Sequence[str] = ()

    def behaviour(
        self, n: int | None = None, seed: int = 0, metric: Metric = METRICS["logit_diff"]
    ) -> Behaviour:
        """The pairs as a behaviour, at most n of them, drawn with the seed.

        Raises `BadInput` for tensors that are no images or hold NaN, `BadBehaviour` for unequal numbers, equal images or
        an unknown class.
        """
        clean, corrupted = (_images(side, self.name) for side in (self.clean, self.corrupted))
        if clean.shape != corrupted.shape:
            raise BadBehaviour(
                f"{self.name!r} has clean images {list(clean.shape)} and corrupted ones {list(corrupted.shape)}.",
                "Give as many of each, of one size.",
            )
        rows = list(range(len(clean)))
        if n is not None and n < len(rows):
            generator = torch.Generator().manual_seed(seed)
            rows = sorted(torch.randperm(len(rows), generator=generator)[:n].tolist())
        sides = [side[rows] for side in (clean, corrupted)]
        right, wrong = self._answers(self.right, rows, "right"), self._answers(self.wrong, rows, "wrong")
        if self.template and len(self.template) != len(clean):
            raise BadBehaviour(
                f"{self.name!r} has {len(clean)} pairs and {len(self.template)} templates.",
                "Give one for each pair.",
            )
        clean_ids, corrupted_ids = _content(sides[0]), _content(sides[1])
        labels = [self.template[row] for row in rows] if self.template else [""] * len(rows)
        examples = []
        for i, row in enumerate(rows):
            texts = f"{self.name} {row} (clean)", f"{self.name} {row} (corrupted)"
            ids = clean_ids[i], corrupted_ids[i]
            examples.append(Example(*texts, *ids, right[i], wrong[i], template=labels[i]))
        items = ItemPairs(sides[0], sides[1], classes=tuple(self.classes))
        return assemble(self.name, examples, metric=metric, seed=seed, from_text=False, items=items)

    def _answers(self, given: Sequence[int | str], rows: Sequence[int], side: str) -> list[tuple[Answer]]:
        """Name and number of each answer, as examples hold them."""
        if len(given) != len(self.clean):
            raise BadBehaviour(
                f"{self.name!r} has {len(self.clean)} images and {len(given)} {side} answers.",
                "Give one for each pair.",
            )
        answers: list[tuple[Answer]] = []
        for answer in (given[row] for row in rows):
            if isinstance(answer, str):
                if answer not in self.classes:
                    raise BadBehaviour(
                        f"{self.name!r}: there is no class {answer!r}.",
                        f"Classes are {', '.join(self.classes) or 'not named: give their numbers'}.",
                    )
                number, name = list(self.classes).index(answer), answer
            else:
                number = int(answer)
                name = self.classes[number] if 0 <= number < len(self.classes) else str(number)
            answers.append(((name, (number,)),))
        return answers


def _images(values: Tensor, name: str) -> Tensor:
    if not torch.is_tensor(values) or not values.is_floating_point() or values.ndim < 2:
        raise BadInput(
            f"The images of {name!r} are no floating-point tensor [n c y x].",
            "Convert them with torch.as_tensor(...).float().",
        )
    if not bool(torch.isfinite(values).all()):
        raise BadInput(f"The images of {name!r} hold NaN or infinity.", "Leave those images out.")
    return values.detach().cpu()


def _content(values: Tensor) -> tuple[Ids, ...]:
    """One number for each row that stands for its content: equal rows get equal numbers."""
    digests = (hashlib.sha256(row.contiguous().numpy().tobytes()).hexdigest() for row in values)
    return tuple((int(digest[:12], 16),) for digest in digests)
