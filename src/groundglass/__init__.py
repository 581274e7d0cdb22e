"""groundglass finds COVID-19 lesions in chest CT.

    scan = groundglass.read_scan("ct.nii.gz")
    findings = groundglass.analyse(scan)
    print(findings.lesion_volume_ml, findings.lesion_share_of_lung_percent)

Names are loaded on first use, so that `import groundglass` is quick and never loads torch.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
