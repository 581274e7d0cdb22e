/** The scan in NiiVue, with the lesion as its drawing layer: one byte a voxel, and the brush writes straight into it. */

import { DRAG_MODE, MULTIPLANAR_TYPE, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue";
import type { Grid, Voxel } from "./brush";
import { fromDrawing, type MaskFile, type Order, toDrawing } from "./mask";

export type Layout = "axial" | "multiplanar" | "3d";

export const WINDOWS = { lung: [-1250, 250], mediastinum: [-160, 240] } as const;
export type WindowName = keyof typeof WINDOWS;

const SLICE_TYPES: Record<Layout, SLICE_TYPE> = {
  axial: SLICE_TYPE.AXIAL,
  multiplanar: SLICE_TYPE.MULTIPLANAR,
  "3d": SLICE_TYPE.RENDER,
};
/** Of the mask's value 1, 2, ...: lesion, or the classes of a model that has them. */
const COLOURS = [
  [255, 110, 30],
  [230, 70, 160],
  [255, 215, 60],
] as const;
const SOLID = { R: [0, 0, 0, 255], G: [0, 0, 0, 250], B: [0, 0, 0, 245], A: [0, 0, 10, 120], I: [0, 90, 150, 255] };
const SOLID_NAME = "groundglass_solid";
const SOLID_HU = [-600, 400] as const; // of the 3D picture
const CONTOUR_FILL = 0.02; // NiiVue draws a rim only around what it draws
const CONTOUR_LEAST = 0.9; // a line of one pixel needs more than an area
const ZOOM_STEP = 1.25;
const ZOOM_RANGE = [1, 12] as const;

/** A place on a slice. */
export interface Picked {
  voxel: Voxel;
  /** Axis across the slice: 0, 1 or 2. */
  normal: number;
  pixelsPerMm: number;
}

export class Viewer {
  private readonly nv: Niivue;
  private attached = false;
  private file: MaskFile | null = null;
  private order: Order | null = null;
  private shown = true;
  private contour = false;
  private opacity = 0.5;
  private current: Layout = "axial";
  private windowName: WindowName = "lung";
  /** Called when the crosshair moved, whoever moved it. */
  moved: () => void = () => {};

  constructor(private readonly canvas: HTMLCanvasElement) {
    this.nv = new Niivue({
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
    });
    this.nv.onLocationChange = () => this.moved();
    const resize = this.nv.resizeListener.bind(this.nv);
    this.nv.resizeListener = () => {
      if (canvas.offsetWidth > 0) resize(); // while another page is open the canvas is nowhere, and has no size
    };
    // NiiVue's own keys and double click change what the page's controls say: the page has its own.
    for (const kind of ["keydown", "keyup", "dblclick"]) {
      canvas.addEventListener(kind, (event) => event.stopImmediatePropagation(), { capture: false });
    }
  }

  /** Load a scan and its mask, and go to the slice in the middle. */
  async show(scan: ArrayBuffer, mask: MaskFile): Promise<void> {
    const { nv } = this;
    if (!this.attached) {
      await nv.attachToCanvas(this.canvas);
      nv.setRadiologicalConvention(true);
      nv.addColormap(SOLID_NAME, { ...SOLID, min: SOLID_HU[0], max: SOLID_HU[1] });
      nv.drawLut = { lut: colours(), labels: Array.from({ length: 256 }, (_, i) => String(i)) };
      this.attached = true;
    }
    nv.closeDrawing();
    for (const volume of [...nv.volumes]) nv.removeVolume(volume);
    const { colormap, low, high } = this.look();
    await nv.addVolumeFromUrl({ url: "scan.nii.gz", buffer: scan, colormap, cal_min: low, cal_max: high });
    const volume = nv.volumes[0]!;
    const dims = volume.dimsRAS!.slice(1, 4) as Voxel;
    this.order = { dims, start: volume.img2RASstart as Voxel, step: volume.img2RASstep as Voxel };
    if (mask.voxels.length !== dims[0] * dims[1] * dims[2]) throw new Error("the mask does not fit the scan");
    this.file = mask;
    // What NiiVue's loadDrawing does, without its copies for an undo and a tool that are not used: a scan is large.
    nv.drawBitmap = toDrawing(mask.voxels, this.order);
    nv.drawTexture = nv.r8Tex(nv.drawTexture, nv.gl.TEXTURE7, [3, ...dims]);
    nv.setPan2Dxyzmm([0, 0, 0, 1]);
    this.painted(0, dims[2] - 1);
    this.apply();
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
    return [...this.nv.frac2vox(this.nv.scene.crosshairPos)] as Voxel;
  }

  goToVoxel(voxel: Voxel): void {
    this.nv.scene.crosshairPos = this.nv.vox2frac(voxel);
    this.redraw();
    this.moved();
  }

  /** Put the crosshair on a place in the patient: left, back and up in mm. NiiVue counts right and front. */
  goToLps([left, back, up]: readonly [number, number, number]): void {
    this.nv.scene.crosshairPos = this.nv.mm2frac([-left, -back, up]);
    this.redraw();
    this.moved();
  }

  get layout(): Layout {
    return this.current;
  }

  setLayout(layout: Layout): void {
    this.current = layout;
    this.nv.setSliceType(SLICE_TYPES[layout]);
    if (layout === "3d") this.nv.setRenderAzimuthElevation(20, 12);
    this.setWindow(this.windowName);
  }

  setWindow(name: WindowName): void {
    this.windowName = name;
    const volume = this.nv.volumes[0];
    if (!volume) return;
    const { colormap, low, high } = this.look();
    if (volume.colormap === colormap && volume.cal_min === low && volume.cal_max === high) return;
    volume.colormap = colormap; // which resets the window
    [volume.cal_min, volume.cal_max] = [low, high];
    this.nv.updateGLVolume();
  }

  private look(): { colormap: string; low: number; high: number } {
    const solid = this.current === "3d";
    const [low, high] = solid ? SOLID_HU : WINDOWS[this.windowName];
    return { colormap: solid ? SOLID_NAME : "gray", low, high };
  }

  setLesion(look: { shown?: boolean; contour?: boolean; opacity?: number }): void {
    this.shown = look.shown ?? this.shown;
    this.contour = look.contour ?? this.contour;
    this.opacity = look.opacity ?? this.opacity;
    this.apply();
  }

  private apply(): void {
    const outlined = this.contour && this.current !== "3d";
    this.nv.drawRimOpacity = this.shown && outlined ? Math.max(CONTOUR_LEAST, this.opacity) : -1;
    this.nv.setDrawOpacity(!this.shown ? 0 : outlined ? CONTOUR_FILL : this.opacity);
  }

  zoom(direction: 1 | -1 | 0): void {
    const [x, y, z, now] = this.nv.scene.pan2Dxyzmm as unknown as [number, number, number, number];
    if (direction === 0) return this.nv.setPan2Dxyzmm([0, 0, 0, 1]);
    const next = Math.min(ZOOM_RANGE[1], Math.max(ZOOM_RANGE[0], now * ZOOM_STEP ** direction));
    const mm = this.nv.frac2mm(this.nv.scene.crosshairPos);
    const shift = now - next; // keeps the crosshair where it is
    this.nv.setPan2Dxyzmm(next === 1 ? [0, 0, 0, 1] : [x + shift * mm[0]!, y + shift * mm[1]!, z + shift * mm[2]!, next]);
  }

  /** Scroll through the slices of whatever plane is at a place of the canvas. */
  scroll(direction: 1 | -1, x: number, y: number): void {
    this.nv.sliceScroll2D(direction * 0.01, x, y);
  }

  /** Turn the 3D picture by degrees. */
  turn(azimuth: number, elevation: number): void {
    const { scene } = this.nv;
    this.nv.setRenderAzimuthElevation(scene.renderAzimuth + azimuth, scene.renderElevation + elevation);
  }

  /** The voxel under a place of the canvas, in CSS pixels; null beside the slices. */
  pick(x: number, y: number): Picked | null {
    const dpr = this.nv.uiData.dpr ?? 1;
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

  /** Where a voxel is on the canvas, in CSS pixels; null where its slice is not shown. */
  place(voxel: Voxel): { x: number; y: number } | null {
    const at = this.nv.frac2canvasPos(this.nv.vox2frac(voxel));
    const dpr = this.nv.uiData.dpr ?? 1;
    return at && { x: at[0]! / dpr, y: at[1]! / dpr };
  }

  /** Begin to pan; call what is returned with where the pointer is. */
  panFrom(x: number, y: number): (x: number, y: number) => void {
    const { nv } = this;
    const dpr = nv.uiData.dpr ?? 1;
    nv.uiData.pan2DxyzmmAtMouseDown = [...nv.scene.pan2Dxyzmm] as typeof nv.uiData.pan2DxyzmmAtMouseDown;
    return (toX, toY) => {
      nv.dragForPanZoom([x * dpr, y * dpr, toX * dpr, toY * dpr]);
      nv.drawScene();
    };
  }

  /** The drawing, to be painted into; call `painted` after. */
  get drawing(): Uint8Array {
    return this.nv.drawBitmap!;
  }

  get grid(): Grid {
    return { dims: this.order!.dims, spacing_mm: this.nv.volumes[0]!.pixDimsRAS!.slice(1, 4) as Voxel };
  }

  /** Show what was painted between two slices: those alone go to the graphics memory, which makes the brush quick. */
  painted(first: number, last: number): void {
    const { gl, drawTexture } = this.nv;
    const [nx, ny] = this.order!.dims;
    gl.activeTexture(gl.TEXTURE7);
    gl.bindTexture(gl.TEXTURE_3D, drawTexture);
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
    const bytes = this.drawing.subarray(first * nx * ny, (last + 1) * nx * ny);
    gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, first, nx, ny, last - first + 1, gl.RED, gl.UNSIGNED_BYTE, bytes);
    this.redraw();
  }

  /** The mask as it is drawn, in the order of its file. */
  mask(): { file: MaskFile; voxels: Uint8Array<ArrayBuffer> } {
    return { file: this.file!, voxels: fromDrawing(this.drawing, this.order!) };
  }

  /** Draw the mask anew, as it was loaded. */
  restore(): void {
    this.drawing.set(toDrawing(this.file!.voxels, this.order!));
    this.painted(0, this.sliceCount - 1);
  }

  redraw(): void {
    this.nv.drawScene();
  }
}

function colours(): Uint8ClampedArray {
  const lut = new Uint8ClampedArray(256 * 4);
  for (let value = 1; value < 256; value++) {
    const [red, green, blue] = COLOURS[(value - 1) % COLOURS.length]!;
    lut.set([red, green, blue, 255], 4 * value);
  }
  return lut;
}
