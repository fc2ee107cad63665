"""Run text classifiers that trimexport compiled, without PyTorch.

from trimexport_runtime import Classifier

classifier = Classifier.load("build/sentiment")
print(classifier.classify(["a gorgeous, witty, seductive movie"])[0].label)
"""

from .backbone import Backbone
from .bundle import FORMAT_VERSION, Manifest, read_manifest
from .classifier import Classifier
from .errors import (
    BackendError,
    BundleError,
    InputError,
    IntegrityError,
    PackError,
    TrimexportRuntimeError,
    VersionError,
)
from .inputs import Input
from .integrity import check_files
from .prediction import Prediction

__version__ = "0.1.0"

__all__ = [
    "FORMAT_VERSION",
    "Backbone",
    "BackendError",
    "BundleError",
    "Classifier",
    "Input",
    "InputError",
    "IntegrityError",
    "Manifest",
    "PackError",
    "Prediction",
    "TrimexportRuntimeError",
    "VersionError",
    "__version__",
    "check_files",
    "read_manifest",
]
