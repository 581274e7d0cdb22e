/** Fetching the images of a job: scan, lesions and lungs. */

import { api, type ViewDescription } from "./api";
import { gunzip, readMask, readScan } from "./nifti";
import { Scene, type WindowHu } from "./scene";

/** Fetch a scan with its masks; `progress` is called with the share of the scan that has arrived. */
export async function loadScene(
  id: string,
  view: ViewDescription,
  lungWindow: WindowHu,
  progress: (share: number) => void = () => {},
): Promise<Scene> {
  const [scan, mask, lungs] = await Promise.all([
    api.view(id, "scan.nii", progress),
    api.view(id, "lesions.nii.gz").then(gunzip),
    api.view(id, "lungs.nii.gz").then(gunzip),
  ]);
  return new Scene(readScan(scan), readMask(mask), readMask(lungs), view.classes, view.in_mm, view.has_directions, lungWindow);
}
