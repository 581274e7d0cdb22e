from .apps.batch.call import batch
from .apps.follow import follow
from .errors import GroundglassError, InputError
from .inference.engine_config import EngineConfig
from .inference.model_card import ModelCard
from .inference.open_model import open_model
from .inference.segmenter import Segmenter
from .io.dicom_options import DicomOptions
from .io.in_memory import as_scan
from .io.nifti import write_scan
from .io.reader import read_scan
from .report.analysis import Analysis, segment
from .report.findings import Findings
from .report.follow_up import FollowUp
from .report.scan_masks import ProbabilityMap, ScanMask
from .scan.geometry import Geometry
from .scan.kinds import IntensityKind
from .scan.phantom import Phantom, chest_phantom
from .scan.scan import ImageStack, Scan

__version__: str

__all__ = [
    "Analysis",
    "DicomOptions",
    "EngineConfig",
    "Findings",
    "FollowUp",
    "Geometry",
    "GroundglassError",
    "ImageStack",
    "InputError",
    "IntensityKind",
    "ModelCard",
    "Phantom",
    "ProbabilityMap",
    "Scan",
    "ScanMask",
    "Segmenter",
    "as_scan",
    "batch",
    "chest_phantom",
    "follow",
    "open_model",
    "read_scan",
    "segment",
    "write_scan",
]
