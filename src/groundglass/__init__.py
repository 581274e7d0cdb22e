"""groundglass finds COVID-19 lesions in chest CT.

    scan = groundglass.read_scan("ct.nii.gz")
    findings = groundglass.analyse(scan)
    print(findings.lesion_volume_ml, findings.lesion_share_of_lung_percent)

Names are loaded when they are first used, so that `import groundglass` is quick and never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from groundglass.analysis import Analysis, analyse, save, segment
    from groundglass.errors import GroundglassError, InputError
    from groundglass.inference.card import ModelCard
    from groundglass.inference.segmenter import Segmenter
    from groundglass.report.findings import Findings
    from groundglass.scan.geometry import Geometry
    from groundglass.scan.intensity import Kind
    from groundglass.scan.reader import read_scan
    from groundglass.scan.scan import Mask, Scan

_HOMES = {
    "Analysis": "analysis",
    "Findings": "report.findings",
    "Geometry": "scan.geometry",
    "GroundglassError": "errors",
    "InputError": "errors",
    "Kind": "scan.intensity",
    "Mask": "scan.scan",
    "ModelCard": "inference.card",
    "Scan": "scan.scan",
    "Segmenter": "inference.segmenter",
    "analyse": "analysis",
    "read_scan": "scan.reader",
    "save": "analysis",
    "segment": "analysis",
}

__all__ = [
    "Analysis",
    "Findings",
    "Geometry",
    "GroundglassError",
    "InputError",
    "Kind",
    "Mask",
    "ModelCard",
    "Scan",
    "Segmenter",
    "analyse",
    "read_scan",
    "save",
    "segment",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'groundglass' has no attribute {name!r}")
    return getattr(import_module(f"groundglass.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
