"""What kind of work each part does, by three witnesses: its score, its weights, and an intervention.

`half` runs the pairs of a variable, `edges` says where heads look and what they give without that, `weights` what matrices
alone say, `candidates` gives the roles by score, `witnesses` holds the weights against them, `acting` the interventions,
`neurons` names those behind an MLP, `standing_in` is about backups, `telling` judges, `result` holds it, `verb` does it all.
"""

from cutaway.algorithms.roles.limits import RoleLimits
from cutaway.algorithms.roles.result import PartRoles
from cutaway.algorithms.roles.telling import RoleTest
from cutaway.algorithms.roles.verb import roles

__all__ = ["PartRoles", "RoleLimits", "RoleTest", "roles"]
