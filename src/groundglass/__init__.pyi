from .errors import GroundglassError, InputError
from .inference.model_card import ModelCard
from .inference.open_model import open_model
from .inference.segmenter import Segmenter
from .io.reader import read_scan
from .report.analysis import Analysis, analyse, save, segment
from .report.findings import Findings
from .scan.geometry import Geometry
from .scan.kinds import IntensityKind
from .scan.scan import ImageStack, Mask, Scan

__all__ = [
    "Analysis",
    "Findings",
    "Geometry",
    "GroundglassError",
    "ImageStack",
    "InputError",
    "IntensityKind",
    "Mask",
    "ModelCard",
    "Scan",
    "Segmenter",
    "analyse",
    "open_model",
    "read_scan",
    "save",
    "segment",
]
