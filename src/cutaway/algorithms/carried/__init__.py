"""What each part carries: which variable of the prompt, told by exchanging one variable at a time.

`pairs` gives the pairs that differ in one variable alone, `exchanging` puts a part's value of the one prompt into the other
and measures what of the exchange of the variable that does, `standing` picks the places that stand out, also where the
values are shuffled, `telling` says what may be said, `result` holds it, `verb` does it all in order.
"""

from cutaway.algorithms.carried.limits import CarriedLimits
from cutaway.algorithms.carried.result import CarriedVariables
from cutaway.algorithms.carried.verb import carried

__all__ = ["CarriedLimits", "CarriedVariables", "carried"]
