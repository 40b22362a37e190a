"""The residual stream: where information enters, how it moves, how it is read."""

from cutaway.stream.attribution import Attribution, attribute, logit_attribution
from cutaway.stream.by_feature import attribute_features, direction_at
from cutaway.stream.fold import Fold, Norm, probe
from cutaway.stream.record import Stack, Stream, read_stream
from cutaway.stream.targets import direction, string_log_prob, token_ids
from cutaway.stream.writers import Writer

__all__ = [
    "Attribution", "Fold", "Norm", "Stack", "Stream", "Writer", "attribute",
    "attribute_features", "direction", "direction_at", "logit_attribution", "probe",
    "read_stream", "string_log_prob", "token_ids",
]  # fmt: skip
