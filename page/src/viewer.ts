/** Three planes and a 3-D view of one scan: layout, position, window, zoom. */

import { type BrushTarget, handleGestures, type Target, type Tool } from "./gestures";
import { h } from "./dom";
import { signed } from "./format";
import { type Axis, clamp, nearestVoxel, type Voxel } from "./grid";
import { drawOverlay } from "./overlay";
import { Pane } from "./pane";
import { type PlaneName, PLANES, type Projection } from "./planes";
import { Rendering } from "./rendering";
import type { Ruler, Scene, WindowHu } from "./scene";

export type Layout = PlaneName | "multiplanar" | "3d";

const ZOOM_STEP = 1.25;
const ZOOM_RANGE = [1, 16] as const;

export class Viewer implements Target {
  readonly panes: Record<PlaneName, Pane>;
  readonly rendering = new Rendering();
  readonly element: HTMLElement;
  scene: Scene | null = null;
  layout: Layout = "axial";
  tool: Tool = matchMedia("(pointer: coarse)").matches ? "scroll" : "window";
  brush: BrushTarget | null = null;
  /** Called when another position is shown. */
  moved: () => void = () => {};
  /** Called when the window was changed by dragging. */
  windowChanged: () => void = () => {};
  /** Called when zoom or place of the picture was changed. */
  zoomed: () => void = () => {};
  /** Called when a distance was measured, or all were removed. */
  rulersChanged: () => void = () => {};
  /** Called with the layout that a double click asks for. */
  layoutAsked: (layout: Layout) => void = () => {};
  /** Called with the voxel under the pointer, its pane and the place on it; null where there is none. */
  hovered: (pane: Pane, at: Voxel | null, point: [number, number] | null) => void = () => {};
  /** Words for the foot of a pane. */
  describe: (pane: Pane) => string = () => "";
  private frame = 0;
  private pointer: { pane: Pane; point: [number, number] } | null = null;

  constructor() {
    this.panes = { axial: new Pane("axial"), coronal: new Pane("coronal"), sagittal: new Pane("sagittal") };
    const { axial, coronal, sagittal } = this.panes;
    this.element = h(
      "div",
      { class: "panes", "data-layout": this.layout },
      axial.element,
      coronal.element,
      sagittal.element,
      this.rendering.element,
    );
    for (const pane of Object.values(this.panes)) handleGestures(pane, this);
    this.rendering.doubleClicked = () => this.enlarge("3d");
    new ResizeObserver(() => {
      const { clientWidth: width, clientHeight: height } = this.element;
      if (height) this.element.style.setProperty("--shape", (width / height).toFixed(3)); // kept on paper
      this.redraw();
    }).observe(this.element);
  }

  /** Show a scan; null shows nothing and frees its memory. */
  show(scene: Scene | null): void {
    this.scene = scene;
    for (const pane of Object.values(this.panes)) pane.show(scene);
    this.rendering.show(scene);
    this.redraw();
  }

  /** Draw all panes before the next frame. */
  redraw(): void {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      for (const pane of Object.values(this.panes)) {
        this.label(pane);
        pane.draw(drawOverlay);
      }
      this.rendering.draw();
    });
  }

  /** Write into the corners of a pane: the HU under the pointer and the window; which slice it is. */
  private label(pane: Pane): void {
    const { scene, pointer } = this;
    pane.foot.textContent = scene ? this.describe(pane) : "";
    if (!scene) return;
    const at = pointer?.pane === pane ? pane.voxelAt(...pointer.point) : null;
    const [low, high] = scene.window;
    const window = `W ${Math.round(high - low)} L ${signed(Math.round((high + low) / 2))}`;
    pane.corner.textContent = at ? `${signed(scene.hu(pane.name, at))} HU · ${window}` : window;
  }

  setLayout(layout: Layout): void {
    this.layout = layout;
    this.element.dataset["layout"] = layout;
    this.redraw();
  }

  /** The pane that keys act on: the one with the focus, or the one that is alone, or the axial one. */
  get focusedPane(): Pane {
    const panes = Object.values(this.panes);
    const focused = panes.find(({ canvas }) => canvas === document.activeElement);
    return focused ?? panes.find(({ name }) => name === this.layout) ?? this.panes.axial;
  }

  // Position.

  /** The axial slice, from 0 at the feet. */
  get slice(): number {
    return this.scene?.cursor[2] ?? 0;
  }

  goToSlice(slice: number): void {
    if (this.scene) this.goAlong(2, slice);
  }

  goTo(at: Voxel): void {
    this.go(at, [0, 1, 2]);
  }

  /** Go to another slice across an axis. */
  private goAlong(axis: Axis, slice: number): void {
    this.go(this.scene!.cursor.map((n, i) => (i === axis ? slice : n)) as Voxel, [axis]);
  }

  private go(at: Voxel, axes: readonly Axis[]): void {
    if (!this.scene) return;
    const { scene } = this;
    scene.cursor = nearestVoxel(scene.grid, at);
    this.keepInSight(scene, axes);
    this.moved();
    this.redraw();
  }

  /** Move the picture along some axes so that the crosshair is on it when zoomed in. */
  private keepInSight(scene: Scene, axes: readonly Axis[]): void {
    if (!scene.centre) return;
    const { cursor } = scene;
    const before = scene.centre;
    for (const pane of Object.values(this.panes)) {
      const { clientWidth: width, clientHeight: height } = pane.canvas;
      if (!width) continue;
      const { across, down } = PLANES[pane.name];
      const [x, y] = pane.pointOf(cursor);
      const out = axes.filter((axis) => (axis === across && (x < 0 || x > width)) || (axis === down && (y < 0 || y > height)));
      if (out.length) scene.centre = scene.centre.map((n, axis) => (out.includes(axis as Axis) ? cursor[axis]! : n)) as Voxel;
    }
    if (scene.centre !== before) this.zoomed();
  }

  scroll(pane: Pane, slices: number): void {
    if (!this.scene) return;
    const { normal } = PLANES[pane.name];
    const step = normal === 1 ? -slices : slices; // up is towards the head, the front, the patient's left
    this.goAlong(normal, this.scene.cursor[normal] + step);
  }

  click(pane: Pane, x: number, y: number): void {
    const at = pane.voxelAt(x, y);
    if (at) this.goTo(at);
  }

  doubleClick(pane: Pane): void {
    this.enlarge(pane.name);
  }

  /** Show one view alone; all of them, if it is alone. */
  private enlarge(layout: Layout): void {
    if (this.brush) return;
    this.layoutAsked(this.layout === "multiplanar" ? layout : "multiplanar");
  }

  hover(pane: Pane, point: [number, number] | null): void {
    this.pointer = point && { pane, point };
    this.label(pane);
    this.hovered(pane, point && pane.voxelAt(...point), point);
  }

  // Window.

  setWindow(window: WindowHu): void {
    if (!this.scene) return;
    this.scene.window = window;
    this.redraw();
  }

  dragWindow(dx: number, dy: number): void {
    if (!this.scene) return;
    const [low, high] = this.scene.window;
    const [width, level] = [high - low, (high + low) / 2];
    const step = Math.max(1, width / 400);
    const [wider, higher] = [clamp(width + dx * step, 10, 5000), clamp(level + dy * step, -1500, 3000)];
    this.setWindow([Math.round(higher - wider / 2), Math.round(higher + wider / 2)]);
    this.windowChanged();
  }

  setSlab(projection: Projection, thickness_mm: number): void {
    if (!this.scene) return;
    this.scene.slab = { projection, thickness_mm };
    this.redraw();
  }

  setLesion(style: { visible?: boolean; contour?: boolean; opacity?: number }): void {
    if (!this.scene) return;
    Object.assign(this.scene.lesion, style);
    this.redraw();
  }

  // Zoom and pan.

  zoomAt(pane: Pane, factor: number, x: number, y: number): void {
    const { scene } = this;
    if (!scene) return;
    const zoom = clamp(scene.zoom * factor, ...ZOOM_RANGE);
    const at = pane.positionAt(x, y);
    scene.centre ??= this.middle(scene);
    scene.zoom = zoom;
    const [centreX, centreY] = [pane.canvas.clientWidth / 2, pane.canvas.clientHeight / 2];
    this.moveCentre(pane, at, (x - centreX) / pane.pixelsPerMm, (y - centreY) / pane.pixelsPerMm);
    if (zoom === 1) scene.centre = null;
    this.zoomed();
    this.redraw();
  }

  /** Zoom in (1) or out (-1) by a step around the crosshair, or show the whole slice (0). */
  zoom(direction: 1 | -1 | 0): void {
    const { scene, focusedPane: pane } = this;
    if (!scene) return;
    if (this.layout === "3d" || document.activeElement === this.rendering.canvas) {
      if (direction === 0) this.rendering.fit();
      else this.rendering.zoomBy(ZOOM_STEP ** direction);
    } else if (direction === 0) {
      [scene.zoom, scene.centre] = [1, null];
      this.zoomed();
    } else this.zoomAt(pane, ZOOM_STEP ** direction, ...pane.pointOf(scene.cursor));
    this.redraw();
  }

  pan(pane: Pane, dx: number, dy: number): void {
    const { scene } = this;
    if (!scene?.centre) return;
    this.moveCentre(pane, scene.centre, dx / pane.pixelsPerMm, dy / pane.pixelsPerMm);
    this.zoomed();
    this.redraw();
  }

  private middle(scene: Scene): Voxel {
    return scene.grid.dims.map((n) => (n - 1) / 2) as Voxel;
  }

  /** Put the middle of a pane at a distance in mm to the left of and above a position. */
  private moveCentre(pane: Pane, at: readonly number[], right_mm: number, down_mm: number): void {
    const { scene } = this;
    if (!scene?.centre) return;
    const { across, down, upwards } = PLANES[pane.name];
    const { dims, spacing_mm } = scene.grid;
    const centre: Voxel = [...scene.centre];
    centre[across] = clamp(at[across]! - right_mm / spacing_mm[across]!, 0, dims[across]! - 1);
    centre[down] = clamp(at[down]! - ((upwards ? -1 : 1) * down_mm) / spacing_mm[down]!, 0, dims[down]! - 1);
    scene.centre = centre;
  }

  // Measuring.

  measure(pane: Pane, from: [number, number], to: [number, number], isOver: boolean): void {
    const { scene } = this;
    if (!scene) return;
    const ends = [from, to].map(([x, y]) => {
      const at = pane.positionAt(x, y);
      return at.map((n, axis) => clamp(n, -0.5, scene.grid.dims[axis]! - 0.5)) as Voxel;
    }) as [Voxel, Voxel];
    const ruler = { plane: pane.name, slice: scene.slice(pane.name), from: ends[0], to: ends[1] };
    if (isOver) return this.keepRuler(pane, ruler);
    pane.draft = ruler;
    this.redraw();
  }

  /** Keep a distance that was measured in a pane. */
  keepRuler(pane: Pane, ruler: Ruler): void {
    pane.draft = null;
    this.scene?.rulers.push(ruler);
    this.rulersChanged();
    this.redraw();
  }

  remember(pane: Pane): () => void {
    const { scene } = this;
    if (!scene) return () => {};
    const { window, cursor, centre } = scene;
    return () => {
      pane.draft = null;
      [scene.window, scene.cursor, scene.centre] = [window, cursor, centre];
      this.windowChanged();
      this.moved();
      this.zoomed();
      this.redraw();
    };
  }

  removeRulers(): void {
    if (!this.scene) return;
    this.scene.rulers = [];
    this.rulersChanged();
    this.redraw();
  }

  // The mask.

  /** Draw the mask anew after a change to its voxels. */
  maskChanged(): void {
    if (!this.scene) return;
    this.scene.maskVersion++;
    this.redraw();
  }
}
