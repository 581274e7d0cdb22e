/**
 * The only file that knows NiiVue: it draws the scan with the mask over it, and converts positions.
 *
 * NiiVue has no public way to load a mask that is already in memory, to update single slices of it, to convert
 * positions, or to pan by the page's own controls. Its internal members that serve for this are used here and nowhere
 * else; the version is pinned in package.json, and tests/apps/service/test_page_*.py compare what is drawn with the data.
 */

import { DRAG_MODE, MULTIPLANAR_TYPE, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";
import type { Grid, Voxel } from "./brush";
import type { Order } from "./mask";

export type Layout = "axial" | "multiplanar" | "3d";

/** Lower and upper limit of an intensity window, in HU. */
export type WindowHu = readonly [number, number];

/** How the scan is drawn: in grey within a window, or as a translucent 3D rendering. */
export type ScanStyle = WindowHu | "rendering";

/** A voxel of a slice, and the scale of that slice on the screen. */
export interface Picked {
  voxel: Voxel;
  /** Axis across the slice: 0, 1 or 2. */
  normal: number;
  /** CSS pixels. */
  pixelsPerMm: number;
}

type Point = { x: number; y: number };

const SLICE_TYPES: Record<Layout, SLICE_TYPE> = {
  axial: SLICE_TYPE.AXIAL,
  multiplanar: SLICE_TYPE.MULTIPLANAR,
  "3d": SLICE_TYPE.RENDER,
};
/** RGB of the mask's values 1, 2, ...: lesion, or the classes of a model that has several. */
const LESION_COLOURS = [
  [255, 110, 30],
  [230, 70, 160],
  [255, 215, 60],
] as const;
const RENDERING = { R: [0, 0, 0, 255], G: [0, 0, 0, 250], B: [0, 0, 0, 245], A: [0, 0, 10, 120], I: [0, 90, 150, 255] };
const RENDERING_NAME = "groundglass_rendering";
const RENDERING_HU: WindowHu = [-600, 400];
const OPTIONS = {
  sliceType: SLICE_TYPES.axial,
  logLevel: "error",
  loadingText: "",
  dragAndDropEnabled: false,
  isRadiologicalConvention: true,
  backColor: [0, 0, 0, 1],
  fontColor: [0.85, 0.9, 0.93, 1],
  fontMinPx: 18,
  multiplanarPadPixels: 4,
  crosshairColor: [0.37, 0.76, 0.81, 0.55],
  crosshairWidth: 0.8,
  crosshairWidthUnit: "mm",
  crosshairGap: 8,
  dragMode: DRAG_MODE.none,
  mouseEventConfig: {
    leftButton: { primary: DRAG_MODE.crosshair, withShift: DRAG_MODE.pan, withCtrl: DRAG_MODE.pan },
    rightButton: DRAG_MODE.pan,
    centerButton: DRAG_MODE.pan,
  },
  doubleTouchTimeout: 0,
  longTouchTimeout: 1e9,
  clipPlaneHotKey: "",
  cycleClipPlaneHotKey: "",
  viewModeHotKey: "",
  multiplanarShowRender: SHOW_RENDER.NEVER,
  multiplanarLayout: MULTIPLANAR_TYPE.AUTO,
  showAllOrientationMarkers: true,
} satisfies ConstructorParameters<typeof Niivue>[0];

export class NiivueCanvas {
  private readonly nv = new Niivue(OPTIONS);
  private attached = false;
  private dims: Voxel = [0, 0, 0];

  /** @param moved Called when the pointer has moved the crosshair. */
  constructor(
    private readonly canvas: HTMLCanvasElement,
    moved: () => void,
  ) {
    this.nv.onLocationChange = moved;
    const resize = this.nv.resizeListener.bind(this.nv);
    this.nv.resizeListener = () => {
      if (canvas.offsetWidth > 0) resize(); // a canvas that is not in the document has no size
    };
    // NiiVue's own keys and double click would change what the page's controls show; the page has keys of its own.
    for (const kind of ["keydown", "keyup", "dblclick"]) {
      canvas.addEventListener(kind, (event) => event.stopImmediatePropagation(), { capture: false });
    }
  }

  /** Load a NIfTI scan in place of the last one; the order of its file relative to the drawing. */
  async load(scan: ArrayBuffer, style: ScanStyle): Promise<Order> {
    const { nv } = this;
    await this.attach();
    nv.closeDrawing();
    for (const volume of [...nv.volumes]) nv.removeVolume(volume);
    await nv.addVolumeFromUrl({ url: "scan.nii.gz", buffer: scan, ...niivueStyle(style) });
    const volume = nv.volumes[0]!;
    this.dims = volume.dimsRAS!.slice(1, 4) as Voxel;
    return { dims: this.dims, start: volume.img2RASstart as Voxel, step: volume.img2RASstep as Voxel };
  }

  private async attach(): Promise<void> {
    if (this.attached) return;
    const { nv } = this;
    await nv.attachToCanvas(this.canvas);
    nv.setRadiologicalConvention(true);
    nv.addColormap(RENDERING_NAME, { ...RENDERING, min: RENDERING_HU[0], max: RENDERING_HU[1] });
    nv.drawLut = { lut: lesionLut(), labels: Array.from({ length: 256 }, (_, i) => String(i)) };
    this.attached = true;
  }

  get grid(): Grid {
    return { dims: this.dims, spacing_mm: this.nv.volumes[0]!.pixDimsRAS!.slice(1, 4) as Voxel };
  }

  setStyle(style: ScanStyle): void {
    const volume = this.nv.volumes[0];
    if (!volume) return;
    const { colormap, cal_min, cal_max } = niivueStyle(style);
    if (volume.colormap === colormap && volume.cal_min === cal_min && volume.cal_max === cal_max) return;
    volume.colormap = colormap; // resets the window, which is therefore set after it
    [volume.cal_min, volume.cal_max] = [cal_min, cal_max];
    this.nv.updateGLVolume();
  }

  setLayout(layout: Layout): void {
    this.nv.setSliceType(SLICE_TYPES[layout]);
    if (layout === "3d") this.nv.setRenderAzimuthElevation(20, 12);
  }

  /** Rotate the 3D rendering by degrees. */
  rotate(azimuth: number, elevation: number): void {
    const { scene } = this.nv;
    this.nv.setRenderAzimuthElevation(scene.renderAzimuth + azimuth, scene.renderElevation + elevation);
  }

  redraw(): void {
    this.nv.drawScene();
  }

  // The drawing: the mask, one byte per voxel.

  /**
   * Draw a mask over the scan. NiiVue's own loadDrawing also keeps copies for its undo and its tools, which the page does
   * not use and which would take several times the memory of the mask.
   */
  setDrawing(voxels: Uint8Array<ArrayBuffer>): void {
    const { nv } = this;
    nv.drawBitmap = voxels;
    nv.drawTexture = nv.r8Tex(nv.drawTexture, nv.gl.TEXTURE7, [3, ...this.dims]);
    this.updateDrawing(0, this.dims[2] - 1);
  }

  /** The voxels that are drawn; after a change to them, call `updateDrawing`. */
  get drawing(): Uint8Array {
    return this.nv.drawBitmap!;
  }

  /** Send the slices from `first` to `last` to the graphics memory; sending all of them would slow the brush down. */
  updateDrawing(first: number, last: number): void {
    const { gl, drawTexture } = this.nv;
    const [nx, ny] = this.dims;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const bytes = this.drawing.subarray(first * nx * ny, (last + 1) * nx * ny);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, first, nx, ny, last - first + 1, gl.RED, gl.UNSIGNED_BYTE, bytes);
    this.redraw();
  }

  /** Opacity of the mask's area and of its contour, from 0 to 1; `null` draws no contour. */
  setDrawingOpacity(area: number, contour: number | null): void {
    this.nv.drawRimOpacity = contour ?? -1;
    this.nv.setDrawOpacity(area);
  }

  // Positions: voxels of the drawing, mm of the patient, and CSS pixels of the canvas.

  get crosshair(): Voxel {
    return [...this.nv.frac2vox(this.nv.scene.crosshairPos)] as Voxel;
  }

  set crosshair(voxel: Voxel) {
    this.nv.scene.crosshairPos = this.nv.vox2frac(voxel);
    this.redraw();
  }

  /** Put the crosshair on a position in the patient: left, posterior and superior in mm. NiiVue counts right and anterior. */
  setCrosshairLps([left, posterior, superior]: readonly [number, number, number]): void {
    this.nv.scene.crosshairPos = this.nv.mm2frac([-left, -posterior, superior]);
    this.redraw();
  }

  /** The voxel at a point of the canvas; null outside the slices. */
  pick(x: number, y: number): Picked | null {
    const dpr = this.devicePixelRatio;
    const tile = this.nv.tileIndex(x * dpr, y * dpr);
    const slice = this.nv.screenSlices[tile];
    if (!slice || slice.axCorSag > SLICE_TYPE.SAGITTAL) return null;
    const frac = this.nv.screenXY2TextureFrac(x * dpr, y * dpr, tile, true);
    if (frac[0] < 0) return null;
    const normal = 2 - slice.axCorSag;
    const voxel = [...this.nv.frac2vox(frac)] as Voxel;
    voxel[normal] = this.crosshair[normal]!;
    return { voxel, normal, pixelsPerMm: slice.leftTopWidthHeight[2]! / slice.fovMM[0]! / dpr };
  }

  /** The point of the canvas at which a voxel is drawn; null where its slice is not shown. */
  pointOf(voxel: Voxel): Point | null {
    const pixels = this.nv.frac2canvasPos(this.nv.vox2frac(voxel));
    return pixels && { x: pixels[0]! / this.devicePixelRatio, y: pixels[1]! / this.devicePixelRatio };
  }

  private get devicePixelRatio(): number {
    return this.nv.uiData.dpr ?? 1;
  }

  // Zoom and pan.

  get zoom(): number {
    return this.nv.scene.pan2Dxyzmm[3]!;
  }

  /** Zoom the slices, keeping the crosshair where it is on the screen; 1 shows the whole slice. */
  zoomTo(factor: number): void {
    if (factor === 1) return this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    const [x, y, z, zoom] = [...this.nv.scene.pan2Dxyzmm] as [number, number, number, number];
    const mm = this.nv.frac2mm(this.nv.scene.crosshairPos);
    const change = zoom - factor;
    this.nv.setPan2Dxyzmm([x + change * mm[0]!, y + change * mm[1]!, z + change * mm[2]!, factor]);
  }

  /** Scroll by a slice in the plane that is drawn at a point of the canvas. */
  scroll(direction: 1 | -1, x: number, y: number): void {
    this.nv.sliceScroll2D(direction * 0.01, x, y);
  }

  /** Start to pan at a point of the canvas; call the returned function with each new point. */
  panFrom(x: number, y: number): (x: number, y: number) => void {
    const { nv, devicePixelRatio: dpr } = this;
    nv.uiData.pan2DxyzmmAtMouseDown = [...nv.scene.pan2Dxyzmm] as typeof nv.uiData.pan2DxyzmmAtMouseDown;
    return (toX, toY) => {
      nv.dragForPanZoom([x * dpr, y * dpr, toX * dpr, toY * dpr]);
      nv.drawScene();
    };
  }
}

function niivueStyle(style: ScanStyle): { colormap: string; cal_min: number; cal_max: number } {
  const [cal_min, cal_max] = style === "rendering" ? RENDERING_HU : style;
  return { colormap: style === "rendering" ? RENDERING_NAME : "gray", cal_min, cal_max };
}

function lesionLut(): Uint8ClampedArray {
  const lut = new Uint8ClampedArray(256 * 4);
  for (let value = 1; value < 256; value++) {
    const [red, green, blue] = LESION_COLOURS[(value - 1) % LESION_COLOURS.length]!;
    lut.set([red, green, blue, 255], 4 * value);
  }
  return lut;
}
