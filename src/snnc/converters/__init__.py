"""The converters of `ml_genn_tf.converters`, name for name, on snnc's compiler: change the import and go on.

They take Keras 3 models and give mlGeNN networks. docs/coming-from-ml-genn-tf.md says what differs. Needs GeNN, mlGeNN
and TensorFlow.
"""

from ..backend.mlgenn import genn  # noqa: F401 - before what imports it in its own way
from .converter import Converter
from .data_norm import DataNorm
from .enum import InputType
from .few_spike import FewSpike
from .simple import Simple
from .spike_norm import spike_normalise

__all__ = ["Converter", "DataNorm", "FewSpike", "InputType", "Simple", "spike_normalise"]
