/** One plane of a scan on a 2-D canvas, with the masks. */

import { css, LUNG } from "./colours";
import { outline } from "./contour";
import { h } from "./dom";
import { clamp, nearestVoxel, type Voxel } from "./grid";
import { cutPlane, type PlaneName, PLANES, pointIn, slabRange, voxelAt } from "./planes";
import type { Ruler, Scene } from "./scene";

const LESION_LINE = 2; // widths in CSS pixels, whatever the zoom
const LUNG_LINE = 1.25;
const PLANE_NAMES: Record<PlaneName, string> = {
  axial: "Axial slices",
  coronal: "Coronal slices",
  sagittal: "Sagittal slices",
};

/** What was last drawn of the plane's voxels; drawn again only when the key changes. */
class Layer {
  readonly canvas = document.createElement("canvas");
  private key = "";

  update(key: string, width: number, height: number, paint: (pixels: Uint32Array) => void): void {
    if (key === this.key) return;
    this.key = key;
    if (this.canvas.width !== width || this.canvas.height !== height) [this.canvas.width, this.canvas.height] = [width, height];
    const image = new ImageData(width, height);
    paint(new Uint32Array(image.data.buffer));
    this.canvas.getContext("2d")!.putImageData(image, 0, 0);
  }

  /** Draw anew next time, whatever the key: it names a place in a scan, not the scan. */
  forget(): void {
    this.key = "";
  }
}

export class Pane {
  readonly canvas: HTMLCanvasElement;
  readonly element: HTMLElement;
  /** Text in the upper left corner. */
  readonly corner = h("p", { class: "hud top-left", "aria-hidden": "true" });
  readonly foot = h("p", { class: "hud bottom-left" });
  private readonly grey = new Layer();
  private readonly areas = new Layer();
  private lines: { key: string; lesions: [string, Path2D][]; lungs: Path2D } | null = null;
  private scene: Scene | null = null;
  private ratio = 1;
  /** A distance that is being measured. */
  draft: Ruler | null = null;

  constructor(readonly name: PlaneName) {
    this.canvas = h("canvas", {
      role: "application",
      tabindex: 0,
      "aria-label": `${PLANE_NAMES[name]} of the scan with the lesions drawn over them`,
      "aria-describedby": "scan-keys",
    });
    this.element = h("div", { class: "pane", "data-plane": name }, this.canvas, this.corner, this.foot);
  }

  show(scene: Scene | null): void {
    this.scene = scene;
    for (const layer of [this.grey, this.areas]) layer.forget();
    this.lines = null;
    this.draft = null;
  }

  /** CSS pixels of the canvas for each mm. */
  get pixelsPerMm(): number {
    if (!this.scene) return 1;
    const { across, down } = PLANES[this.name];
    const { zoom, field_mm } = this.scene;
    return zoom * Math.min(this.canvas.clientWidth / field_mm[across], this.canvas.clientHeight / field_mm[down]);
  }

  private get pixelSize_mm(): [number, number] {
    const { across, down } = PLANES[this.name];
    const mm = this.scene!.grid.spacing_mm;
    return [mm[across], mm[down]];
  }

  private get pixels(): [number, number] {
    const { across, down } = PLANES[this.name];
    const { dims } = this.scene!.grid;
    return [dims[across], dims[down]];
  }

  private get size_mm(): [number, number] {
    const [[columns, rows], [dx, dy]] = [this.pixels, this.pixelSize_mm];
    return [columns * dx, rows * dy];
  }

  /** The point of the plane, in mm from its upper left corner, that lies in the middle of the canvas. */
  private get middle_mm(): [number, number] {
    const { zoom, centre, grid } = this.scene!;
    const [width, height] = this.size_mm;
    if (zoom <= 1 || !centre) return [width / 2, height / 2];
    const [[column, row], [dx, dy]] = [pointIn(grid, this.name, centre), this.pixelSize_mm];
    return [clamp((column + 0.5) * dx, 0, width), clamp((row + 0.5) * dy, 0, height)];
  }

  /** The position in voxels, not rounded, at a point of the canvas in CSS pixels. */
  positionAt(x: number, y: number): number[] {
    const [[cx, cy], [dx, dy], scale] = [this.middle_mm, this.pixelSize_mm, this.pixelsPerMm];
    const column = (cx + (x - this.canvas.clientWidth / 2) / scale) / dx - 0.5;
    const row = (cy + (y - this.canvas.clientHeight / 2) / scale) / dy - 0.5;
    return voxelAt(this.scene!.grid, this.name, column, row, this.scene!.slice(this.name));
  }

  /** The voxel at a point of the canvas in CSS pixels; null beside the slice. */
  voxelAt(x: number, y: number): Voxel | null {
    if (!this.scene) return null;
    const at = this.positionAt(x, y);
    const { dims } = this.scene.grid;
    return at.every((n, axis) => n > -0.5 && n < dims[axis]! - 0.5) ? nearestVoxel(this.scene.grid, at) : null;
  }

  /** The point of the canvas, in CSS pixels, at which a position in voxels is drawn. */
  pointOf(at: readonly number[]): [number, number] {
    const [column, row] = pointIn(this.scene!.grid, this.name, at);
    const [[cx, cy], [dx, dy], scale] = [this.middle_mm, this.pixelSize_mm, this.pixelsPerMm];
    return [
      this.canvas.clientWidth / 2 + ((column + 0.5) * dx - cx) * scale,
      this.canvas.clientHeight / 2 + ((row + 0.5) * dy - cy) * scale,
    ];
  }

  /** Draw the plane, the masks, and over them what `drawOver` draws, in CSS pixels. */
  draw(drawOver: (context: CanvasRenderingContext2D, pane: Pane, scene: Scene) => void): void {
    const { canvas, scene } = this;
    if (!scene || canvas.clientWidth === 0) return;
    this.ratio = window.devicePixelRatio || 1;
    const [width, height] = [Math.round(canvas.clientWidth * this.ratio), Math.round(canvas.clientHeight * this.ratio)];
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d", { alpha: false })!;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, width, height);
    this.drawVoxels(context, scene);
    context.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    this.drawOutlines(context, scene);
    drawOver(context, this, scene);
  }

  private drawVoxels(context: CanvasRenderingContext2D, scene: Scene): void {
    const [columns, rows] = this.pixels;
    const slice = scene.slice(this.name);
    const { projection, thickness_mm } = scene.slab;
    const place = `${slice} ${projection} ${projection === "none" ? 0 : thickness_mm}`;
    this.grey.update(`${place} ${scene.window.join()}`, columns, rows, (pixels) => {
      const plane = cutPlane(scene.scan.voxels, scene.grid, this.name, slice, scene.slab);
      const [low, high] = scene.window;
      const factor = 255 / Math.max(1, high - low);
      for (let i = 0; i < plane.length; i++) {
        const level = clamp(Math.round((plane[i]! - low) * factor), 0, 255);
        pixels[i] = 0xff000000 | (level << 16) | (level << 8) | level;
      }
    });
    const [x, y] = this.corner_px;
    const scale = this.pixelsPerMm * this.ratio;
    const [width, height] = this.size_mm;
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = "high";
    context.drawImage(this.grey.canvas, x * this.ratio, y * this.ratio, width * scale, height * scale);
    if (!scene.lesion.visible || scene.lesion.opacity === 0) return;
    this.areas.update(`${place} ${scene.maskVersion}`, columns, rows, (pixels) => {
      const plane = this.cutMask(scene);
      const colours = scene.colours.map(([red, green, blue]) => 0xff000000 | (blue << 16) | (green << 8) | red);
      for (let i = 0; i < plane.length; i++) if (plane[i]) pixels[i] = colours[(plane[i]! - 1) % colours.length]!;
    });
    context.imageSmoothingEnabled = false;
    context.globalAlpha = scene.lesion.opacity;
    context.drawImage(this.areas.canvas, x * this.ratio, y * this.ratio, width * scale, height * scale);
    context.globalAlpha = 1;
  }

  /** The upper left corner of the plane on the canvas, in CSS pixels. */
  private get corner_px(): [number, number] {
    const [[cx, cy], scale] = [this.middle_mm, this.pixelsPerMm];
    return [this.canvas.clientWidth / 2 - cx * scale, this.canvas.clientHeight / 2 - cy * scale];
  }

  private cutMask(scene: Scene): Uint8Array {
    const { projection, thickness_mm } = scene.slab;
    const slab = { projection: projection === "none" ? ("none" as const) : ("maximum" as const), thickness_mm };
    return cutPlane(scene.mask.voxels, scene.grid, this.name, scene.slice(this.name), slab);
  }

  private drawOutlines(context: CanvasRenderingContext2D, scene: Scene): void {
    const slice = scene.slice(this.name);
    const lesions = scene.lesion.visible && scene.lesion.contour;
    if (!lesions && !scene.showLungs) return;
    const key = `${slice} ${scene.slab.projection} ${scene.slab.thickness_mm} ${scene.maskVersion} ${scene.showLungs}`;
    if (this.lines?.key !== key) {
      const [columns, rows] = this.pixels;
      const mask = this.cutMask(scene);
      this.lines = {
        key,
        lesions: scene.colours.map((colour, i) => [css(colour), this.path(outline(mask, columns, rows, (v) => v === i + 1))]),
        lungs: new Path2D(),
      };
      if (scene.showLungs) {
        const lungs = cutPlane(scene.lungs.voxels, scene.grid, this.name, slice, { projection: "none", thickness_mm: 0 });
        for (const side of [1, 2]) this.lines.lungs.addPath(this.path(outline(lungs, columns, rows, (v) => v === side)));
      }
    }
    const scale = this.pixelsPerMm;
    const [x, y] = this.corner_px;
    context.save();
    context.translate(x, y);
    context.scale(scale, scale);
    context.lineCap = "round";
    if (scene.showLungs) stroke(context, this.lines.lungs, css(LUNG, 0.9), LUNG_LINE / scale);
    if (lesions) for (const [colour, path] of this.lines.lesions) stroke(context, path, colour, LESION_LINE / scale);
    context.restore();
  }

  /** A path in mm from the plane's corner. */
  private path(segments: number[]): Path2D {
    const [dx, dy] = this.pixelSize_mm;
    const path = new Path2D();
    for (let i = 0; i < segments.length; i += 4) {
      path.moveTo(segments[i]! * dx, segments[i + 1]! * dy);
      path.lineTo(segments[i + 2]! * dx, segments[i + 3]! * dy);
    }
    return path;
  }

  /** The slices that are shown, of all slices through this plane. */
  get shownSlices(): { first: number; last: number; count: number } {
    const { normal } = PLANES[this.name];
    const [first, end] = slabRange(this.scene!.grid, normal, this.scene!.slice(this.name), this.scene!.slab);
    return { first, last: end - 1, count: this.scene!.grid.dims[normal] };
  }
}

function stroke(context: CanvasRenderingContext2D, path: Path2D, colour: string, width: number): void {
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke(path);
}
