/** The scan on its canvas with the mask over it: what is shown of them, where, and how. */

import type { Grid, Voxel } from "./brush";
import { fromDrawing, type MaskFile, type Order, toDrawing } from "./mask";
import { type Layout, NiivueCanvas, type Picked, type ScanStyle, type WindowHu } from "./niivue";

export type { Layout, WindowHu } from "./niivue";

/** The lung window is the server's, so that page and report show the same. */
export type WindowName = "lung" | "mediastinum";

const MEDIASTINUM_HU: WindowHu = [-160, 240];
const AREA_WITH_CONTOUR = 0.02; // NiiVue draws a contour only around an area that it draws
const MIN_CONTOUR_OPACITY = 0.9; // a line of one pixel needs more opacity than an area
const ZOOM_STEP = 1.25;
const ZOOM_RANGE = [1, 12] as const;

export class Viewer {
  private readonly nv: NiivueCanvas;
  private file: MaskFile | null = null;
  private order: Order | null = null;
  private lungWindow: WindowHu | null = null;
  private visible = true;
  private contour = false;
  private opacity = 0.5;
  private currentLayout: Layout = "axial";
  private windowName: WindowName = "lung";
  /** Called whenever the crosshair has moved. */
  moved: () => void = () => {};

  constructor(canvas: HTMLCanvasElement) {
    this.nv = new NiivueCanvas(canvas, () => this.moved());
  }

  /** Load a scan and its mask. */
  async show(scan: ArrayBuffer, mask: MaskFile, lungWindow: WindowHu): Promise<void> {
    this.lungWindow = lungWindow;
    const order = await this.nv.load(scan, this.scanStyle(lungWindow));
    if (mask.voxels.length !== order.dims[0] * order.dims[1] * order.dims[2]) {
      throw new Error("the mask does not fit the scan");
    }
    [this.file, this.order] = [mask, order];
    this.nv.setDrawing(toDrawing(mask.voxels, order));
    this.nv.zoomTo(1);
    this.applyLesionStyle();
  }

  get sliceCount(): number {
    return this.order?.dims[2] ?? 0;
  }

  /** The axial slice of the crosshair, from 0 at the feet. */
  get slice(): number {
    return Math.min(this.sliceCount - 1, Math.max(0, Math.round(this.crosshair[2])));
  }

  goToSlice(slice: number): void {
    const [x, y] = this.crosshair;
    this.goToVoxel([x, y, Math.min(this.sliceCount - 1, Math.max(0, slice))]);
  }

  get crosshair(): Voxel {
    return this.nv.crosshair;
  }

  goToVoxel(voxel: Voxel): void {
    this.nv.crosshair = voxel;
    this.moved();
  }

  /** Put the crosshair on a position in the patient: left, posterior and superior in mm. */
  goToLps(position_mm: readonly [number, number, number]): void {
    this.nv.setCrosshairLps(position_mm);
    this.moved();
  }

  get layout(): Layout {
    return this.currentLayout;
  }

  setLayout(layout: Layout): void {
    this.currentLayout = layout;
    this.nv.setLayout(layout);
    this.applyScanStyle();
  }

  setWindow(name: WindowName): void {
    this.windowName = name;
    this.applyScanStyle();
  }

  private applyScanStyle(): void {
    if (this.lungWindow) this.nv.setStyle(this.scanStyle(this.lungWindow));
  }

  private scanStyle(lungWindow: WindowHu): ScanStyle {
    if (this.currentLayout === "3d") return "rendering";
    return this.windowName === "lung" ? lungWindow : MEDIASTINUM_HU;
  }

  setLesion(style: { visible?: boolean; contour?: boolean; opacity?: number }): void {
    this.visible = style.visible ?? this.visible;
    this.contour = style.contour ?? this.contour;
    this.opacity = style.opacity ?? this.opacity;
    this.applyLesionStyle();
  }

  private applyLesionStyle(): void {
    if (!this.visible) return this.nv.setDrawingOpacity(0, null);
    const outlined = this.contour && this.currentLayout !== "3d";
    if (outlined) this.nv.setDrawingOpacity(AREA_WITH_CONTOUR, Math.max(MIN_CONTOUR_OPACITY, this.opacity));
    else this.nv.setDrawingOpacity(this.opacity, null);
  }

  /** Zoom in (1) or out (-1) by a step, or show the whole slice (0). */
  zoom(direction: 1 | -1 | 0): void {
    const factor = direction === 0 ? 1 : this.nv.zoom * ZOOM_STEP ** direction;
    this.nv.zoomTo(Math.min(ZOOM_RANGE[1], Math.max(ZOOM_RANGE[0], factor)));
  }

  /** Scroll by a slice in the plane that is drawn at a point of the canvas. */
  scroll(direction: 1 | -1, x: number, y: number): void {
    this.nv.scroll(direction, x, y);
  }

  /** Rotate the 3D rendering by degrees. */
  rotate(azimuth: number, elevation: number): void {
    this.nv.rotate(azimuth, elevation);
  }

  /** The voxel at a point of the canvas, in CSS pixels; null outside the slices. */
  pick(x: number, y: number): Picked | null {
    return this.nv.pick(x, y);
  }

  /** The point of the canvas, in CSS pixels, at which a voxel is drawn; null where its slice is not shown. */
  pointOf(voxel: Voxel): { x: number; y: number } | null {
    return this.nv.pointOf(voxel);
  }

  /** Start to pan at a point of the canvas; call the returned function with each new point. */
  panFrom(x: number, y: number): (x: number, y: number) => void {
    return this.nv.panFrom(x, y);
  }

  /** The voxels of the mask that is drawn; after a change to them, call `updateDrawing`. */
  get drawing(): Uint8Array {
    return this.nv.drawing;
  }

  get grid(): Grid {
    return this.nv.grid;
  }

  /** Redraw the mask in the slices from `first` to `last`. */
  updateDrawing(first: number, last: number): void {
    this.nv.updateDrawing(first, last);
  }

  /** The mask as it is drawn, in the order of its file. */
  mask(): { file: MaskFile; voxels: Uint8Array<ArrayBuffer> } {
    return { file: this.file!, voxels: fromDrawing(this.drawing, this.order!) };
  }

  /** Draw the mask as it was loaded. */
  restore(): void {
    this.drawing.set(toDrawing(this.file!.voxels, this.order!));
    this.updateDrawing(0, this.sliceCount - 1);
  }
}
