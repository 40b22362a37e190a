"""The sections of the page: the story, the drawing and the five questions first, then the evidence of every stage."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cutaway.explanations.computation.depth import STAGES
from cutaway.explanations.computation.picture import drawing, drawn_parts
from cutaway.explanations.computation.questions import ExplainedWhere, answers
from cutaway.reports import Block, Facts, Figure, Heading, Page, Points, Section, Text, Told
from cutaway.trials import with_interval

if TYPE_CHECKING:
    from cutaway.explanations.computation.claimed import ToldComputation

#: Sections of a stage's own page that are told once, for all stages.
_ONCE = ("source",)


def story_sections(told: ToldComputation, where: ExplainedWhere | None = None) -> list[Section]:
    """What is read first. where: the explanation of where it is, which answers, too."""
    blocks: list[Block] = [Told(told.story, numbered=True)]
    if drawn_parts(told):
        blocks.append(Figure(drawing(told), _CAPTION))
    lead = "Each sentence is made from a claim and links to its tests; what was not shown is not said."
    return [
        Section("story", "The story", blocks, lead),
        Section("questions", "Five questions", [Told(answers(told, where))]),
        Section(
            "open",
            "What is not explained" if where is None else "What is not told of the computation",
            [Points(tuple(_open(told)))],
        ),
    ]


_CAPTION = (
    "How the variables move: the words of one prompt below, above each the parts that carry a variable there, from the "
    "first layer up to the answer. A part is drawn where exchanging its value at that word alone, between prompts that "
    "differ in this variable alone, brings more than a fifth of what exchanging the variable does."
)


def _open(told: ToldComputation) -> Iterator[tuple[str, str]]:
    titles = {stage.name: stage.title for stage in STAGES}
    for stage, why in told.missing:
        yield f"{titles.get(stage, stage)}:", why
    if told.chosen:
        yield "Parts that were not asked:", told.chosen
    yield "Other prompts:", "Everything here is of prompts made as these are; of others nothing is said."
    for note in told.notes:
        yield "", note


def evidence_sections(told: ToldComputation) -> list[Section]:
    """What is known of the prompts, and what each stage found."""
    example = told.example
    facts = (
        ("Prompt", example.text),
        ("Right answer", example.answer.strip()),
        ("Known to vary", ", ".join(f"{name} (here {value})" for name, value in example.variables.items())),
        ("Prompts", f"{example.n} of {example.frames} sentence frames"),
        ("Answered right", f"{with_interval(told.accuracy)} of the held-out half"),
        ("Time", ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in told.seconds.items())),
    )
    sections = [Section("cases", "The prompts", [Facts(facts)])]
    titles = {stage.name: stage.title for stage in STAGES}
    for name, result in told.results.items():
        page: Page = result.page()
        sections.append(Section(name, titles.get(name, name), _inside(page.sections), page.headline))
    return sections


def _inside(sections: Sequence[Any]) -> list[Block]:
    """The blocks of a stage's own page, under headings."""
    blocks: list[Block] = []
    for section in sections:
        if section.name in _ONCE:
            continue
        blocks += [Heading(section.title)] if section.title else []
        blocks += [Text((section.lead,))] if section.lead else []
        blocks += list(section.blocks)
    return blocks
