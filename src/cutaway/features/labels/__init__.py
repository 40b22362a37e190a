"""Labels of features without a language model: readable predictors of activation, scored on texts not seen."""

from cutaway.features.labels.labelers import Labeler
from cutaway.features.labels.marks import marks_of_spans
from cutaway.features.labels.result import FeatureLabel, FeatureLabels
from cutaway.features.labels.verb import label_features

__all__ = ["FeatureLabel", "FeatureLabels", "Labeler", "label_features", "marks_of_spans"]
