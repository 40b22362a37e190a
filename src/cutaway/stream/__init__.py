"""The residual stream: where information enters, how it moves, how it is read."""

from cutaway.stream.attribution import Attribution, attribute, logit_attribution
from cutaway.stream.by_feature import attribute_features, direction_at
from cutaway.stream.record import Stream, StreamStack, read_stream
from cutaway.stream.targets import direction, string_log_prob, token_ids

__all__ = [
    "Attribution", "Stream", "StreamStack", "attribute", "attribute_features", "direction", "direction_at",
    "logit_attribution", "read_stream", "string_log_prob", "token_ids",
]  # fmt: skip
