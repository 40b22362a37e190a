"""Prompts of which it is known what varies in them: each with the value of every variable, and where it is spoken.

A contrast pair says that two prompts differ; cases say in what. From them come pairs that differ in one variable alone, and
interchanges, in which one prompt gets a variable's value from another: what a claim about the computation behind a behaviour
is tested on. `cases` makes them from frames, `cases_of` from the frames and words of a built-in behaviour, `cases_from`
takes a table of prompts as they are, `cases_of_pairs` the contrast pairs of a behaviour.
"""

from cutaway.behaviours.cases.case import LAST, Case, Frames, Value, Values
from cutaway.behaviours.cases.choosing import ChosenCases, choose_cases
from cutaway.behaviours.cases.collection import Cases
from cutaway.behaviours.cases.contrast import cases_of_pairs
from cutaway.behaviours.cases.making import cases
from cutaway.behaviours.cases.ready import READY, cases_of
from cutaway.behaviours.cases.table import cases_from

__all__ = [
    "LAST", "READY", "Case", "Cases", "Frames", "Value", "Values", "cases", "cases_from", "cases_of", "cases_of_pairs",
    "LAST", "READY", "Case", "Cases", "ChosenCases", "Frames", "Value", "Values", "cases", "cases_from", "cases_of",
    "choose_cases",
]  # fmt: skip
