"""groundglass finds COVID-19 lesions in chest CT.

The scan may be a path, a numpy array with its spacing, a nibabel or SimpleITK image, or pydicom data sets:

    >>> scan = chest_phantom(shape=(24, 144, 176)).scan
    >>> analysis = segment(scan)
    >>> analysis.findings.lesion_volume_ml == round(analysis.lesions.volume_ml, 3)
    True
    >>> analysis.lesions.voxels.shape, analysis.lungs.voxels.dtype
    ((24, 144, 176), dtype('bool'))

Names are loaded on first use, so that `import groundglass` is quick and never loads torch.
"""

from typing import Any

import lazy_loader

_load, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name == "__version__":  # stated in pyproject.toml alone
        from importlib.metadata import version

        return version(__name__)
    return _load(name)
