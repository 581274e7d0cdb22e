/** Lungs and lesions from the front, brighter where they are deeper: where there is no WebGL2. */

import { LUNG } from "./colours";
import type { Scene } from "./scene";

const LUNG_DEPTH_MM = 160; // from which on a lung is no brighter
const LESION_DEPTH_MM = 25;

export class FrontView {
  private drawn: { scene: Scene; version: number; image: HTMLCanvasElement } | null = null;

  /** Keep no scan. */
  forget(): void {
    this.drawn = null;
  }

  draw(canvas: HTMLCanvasElement, scene: Scene, zoom: number): void {
    const version = scene.maskVersion;
    if (this.drawn?.scene !== scene || this.drawn.version !== version) this.drawn = { scene, version, image: projected(scene) };
    const { image } = this.drawn;
    const [dx, , dz] = scene.grid.spacing_mm;
    const context = canvas.getContext("2d")!;
    const scale = 0.94 * zoom * Math.min(canvas.width / (image.width * dx), canvas.height / (image.height * dz));
    const [width, height] = [image.width * dx * scale, image.height * dz * scale];
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    context.drawImage(image, (canvas.width - width) / 2, (canvas.height - height) / 2, width, height);
  }
}

/** A pixel for each column of voxels from front to back. */
function projected(scene: Scene): HTMLCanvasElement {
  const [nx, ny, nz] = scene.grid.dims;
  const dy = scene.grid.spacing_mm[1];
  const image = new ImageData(nx, nz);
  const sums = new Uint16Array(nx * (1 + scene.colours.length));
  for (let z = 0; z < nz; z++) {
    sums.fill(0);
    for (let i = nx * ny * z, y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, i++) {
        if (scene.lungs.voxels[i]) sums[x]!++;
        if (scene.mask.voxels[i]) sums[nx * scene.mask.voxels[i]! + x]!++;
      }
    }
    for (let x = 0; x < nx; x++) {
      const rgb = LUNG.map((n) => (n * 0.45 * Math.min(LUNG_DEPTH_MM, sums[x]! * dy)) / LUNG_DEPTH_MM);
      scene.colours.forEach((colour, i) => {
        const share = Math.min(1, (sums[nx * (i + 1) + x]! * dy) / LESION_DEPTH_MM);
        colour.forEach((n, channel) => (rgb[channel] = rgb[channel]! * (1 - share) + n * share));
      });
      image.data.set([...rgb, 255], 4 * ((nz - 1 - z) * nx + x));
    }
  }
  const drawn = document.createElement("canvas");
  [drawn.width, drawn.height] = [nx, nz];
  drawn.getContext("2d")!.putImageData(image, 0, 0);
  return drawn;
}
