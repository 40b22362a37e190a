"""Features: dictionaries as sites of a network, and activations over many texts: where a neuron, a latent or a direction is
strongest, which tokens it is active on, what it is called for it, and whole sites written to disk.
"""

from cutaway.features.activations import Activations, activations
from cutaway.features.attach import with_dictionary
from cutaway.features.binding import Binding, bind
from cutaway.features.dashboards import FeatureDashboard, dashboard, export_delphi, export_neuronpedia
from cutaway.features.dictionaries import Dictionary
from cutaway.features.formats import read, write
from cutaway.features.index import FeatureIndex, index_features
from cutaway.features.labels import FeatureLabels, label_features
from cutaway.features.measures import DictionaryMeasures, measure
from cutaway.features.opening import OpenedDictionary
from cutaway.features.opening import open_dictionary as open
from cutaway.features.top_examples import TopExamples, top_examples

__all__ = [
    "Activations",
    "Binding",
    "Dictionary",
    "DictionaryMeasures",
    "FeatureDashboard",
    "FeatureIndex",
    "FeatureLabels",
    "OpenedDictionary",
    "TopExamples",
    "activations",
    "bind",
    "measure",
    "dashboard",
    "export_delphi",
    "export_neuronpedia",
    "index_features",
    "label_features",
    "open",
    "read",
    "top_examples",
    "with_dictionary",
    "write",
]
