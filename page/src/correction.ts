/** Correcting the mask by hand: a brush over the slices, by pointer or by keys, and lesions removed or kept by a click. */

import { Brush, type Stroke } from "./brush";
import { BrushControls, type BrushPlaces, type Mode } from "./brushcontrols";
import { BrushRing } from "./brushring";
import { announce, h } from "./dom";
import { type Axis, nearestVoxel, type Voxel, voxelMl } from "./grid";
import { gzip, writeMask } from "./nifti";
import type { Pane } from "./pane";
import { arrowStep, PLANES } from "./planes";
import type { Scene } from "./scene";
import type { Viewer } from "./viewer";

const SAID: Record<Mode, string> = {
  add: "painted",
  erase: "erased",
  remove: "lesion removed",
  keep: "all other lesions removed",
};
const FAST = 8; // voxels that an arrow moves the brush with Shift
const SCROLLS: Record<string, number> = { PageUp: 1, PageDown: -1 };
const MODE_KEYS: Record<string, Mode> = { a: "add", e: "erase" };

export interface CorrectionHooks {
  save: () => void;
  leave: () => void;
}

/** A correction of the mask that the viewer shows, from its start until it is closed. */
export class Correction {
  /** Whether the mask is being sent: until the server has answered it stays as it is. */
  isSending = false;
  private readonly brush: Brush;
  private readonly controls: BrushControls;
  private readonly ring = new BrushRing();
  private readonly message = h("p", { class: "hud said", role: "alert", hidden: true });
  private readonly hovered: Viewer["hovered"];
  /** Axis across the slice that is drawn on. */
  private normal: Axis = 2;
  private strokeStarted = false;

  constructor(
    private readonly viewer: Viewer,
    private readonly scene: Scene,
    places: BrushPlaces,
    private readonly hooks: CorrectionHooks,
  ) {
    this.brush = new Brush(scene.mask.voxels, scene.scan.voxels, scene.grid);
    const actions = { ...hooks, undo: () => this.step("undo"), redo: () => this.step("redo"), fill: () => this.fill() };
    this.controls = new BrushControls(places, scene.unit, scene.classes, actions);
    this.hovered = viewer.hovered;
    viewer.hovered = (pane, at, point) => {
      this.hovered(pane, at, point);
      this.showRing(pane, at && point);
    };
    viewer.brush = {
      stroke: (pane, x, y) => this.draw(pane, x, y),
      lift: () => this.lift(),
      cancel: () => this.cancel(),
    };
    viewer.element.append(this.message);
    this.showSteps();
  }

  get hasUnsavedChanges(): boolean {
    return this.brush.changeCount > 0;
  }

  /** What was changed, in words. */
  get difference(): string {
    const { added, removed } = this.brush.difference;
    return `+${this.amount(added)}, −${this.amount(removed)}`;
  }

  /** The mask as it is drawn, as .nii.gz. */
  packedMask(): Promise<Blob> {
    return gzip(writeMask(this.scene.mask, this.scene.mask.voxels));
  }

  /** Allow or forbid to change the mask and to save it, while a correction is being sent. */
  allowSaving(allowed: boolean): void {
    this.isSending = !allowed;
    this.controls.allowSaving(allowed);
  }

  /** Show a message over the scan until the mask is changed again. */
  say(words: string): void {
    this.message.textContent = words;
    this.message.hidden = words === "";
  }

  /** Take back all changes. */
  discard(): void {
    while (this.brush.undo());
    this.update();
  }

  close(): void {
    this.viewer.brush = null;
    this.viewer.hovered = this.hovered;
    this.controls.remove();
    this.ring.remove();
    this.message.remove();
  }

  /** Handle a key; returns whether it was one of the brush. */
  handleKey(event: KeyboardEvent): boolean {
    const key = event.key.toLowerCase();
    if (event.ctrlKey || event.metaKey) {
      if (key !== "z" && key !== "y") return false;
      this.step(key === "y" || event.shiftKey ? "redo" : "undo");
      return true;
    }
    const pane = this.viewer.focusedPane;
    const step = arrowStep(pane.name, event.key);
    const voxels = event.shiftKey ? FAST : 1;
    if (step) this.move(pane, step[0], step[1] * voxels);
    else if (event.key in SCROLLS) this.scroll(pane, SCROLLS[event.key]! * voxels);
    else if (key === " ") this.useAtCursor(pane);
    else if (key in MODE_KEYS) this.controls.choose(MODE_KEYS[key]!);
    else if (key === "escape") this.hooks.leave();
    else return false;
    return true;
  }

  // Drawing.

  /** Draw at a point of a pane; a stroke stays in the plane in which it was begun. */
  private draw(pane: Pane, x: number, y: number): void {
    const at = pane.voxelAt(x, y);
    const { normal } = PLANES[pane.name];
    if (!at || this.isSending || (this.strokeStarted && normal !== this.normal)) return;
    this.normal = normal;
    this.scene.cursor = at;
    this.viewer.moved();
    this.useAt(at);
  }

  private useAt(at: Voxel): void {
    const { mode } = this.controls;
    if (mode === "add" || mode === "erase") this.brush.paint(at, this.stroke(mode === "erase"));
    else if (!this.strokeStarted) this.brush.takeLesion(at, mode);
    this.strokeStarted = true;
    this.update();
  }

  private stroke(erase: boolean): Stroke {
    const { diameter_mm, value, range_hu } = this.controls;
    return { normal: this.normal, diameter_mm, erase, value, range_hu };
  }

  private lift(): void {
    this.strokeStarted = false;
    if (this.brush.lift()) this.update();
  }

  private cancel(): void {
    this.brush.cancel();
    this.strokeStarted = false;
    this.update();
  }

  private fill(): void {
    if (this.isSending) return;
    const pane = this.viewer.focusedPane;
    const slices = this.brush.interpolate(PLANES[pane.name].normal, this.scene.slice(pane.name), this.controls.value);
    this.update();
    if (slices) announce(`${slices} slices filled`);
    else this.say("Nothing to fill: draw on a slice below and on one above first.");
  }

  private step(direction: "undo" | "redo"): void {
    if (this.isSending) return;
    this.lift();
    const did = this.brush[direction]();
    this.update();
    announce(did ? `${direction === "undo" ? "undone" : "done again"}: ${this.difference}` : `nothing to ${direction}`);
  }

  // By keys, in the slices of the pane with the focus.

  private move(pane: Pane, along: Axis, voxels: number): void {
    const { scene, viewer } = this;
    viewer.goTo(nearestVoxel(scene.grid, scene.cursor.map((n, axis) => (axis === along ? n + voxels : n))));
    this.showRing(pane, pane.pointOf(scene.cursor));
  }

  private scroll(pane: Pane, slices: number): void {
    this.viewer.scroll(pane, slices);
    this.showRing(pane, pane.pointOf(this.scene.cursor));
  }

  private useAtCursor(pane: Pane): void {
    if (this.isSending) return;
    this.normal = PLANES[pane.name].normal;
    this.useAt(this.scene.cursor);
    this.lift();
    announce(`${SAID[this.controls.mode]}: ${this.difference}`);
  }

  // What is shown.

  private showRing(pane: Pane, point: [number, number] | null): void {
    const { mode, diameter_mm } = this.controls;
    this.ring.show(pane, mode === "add" || mode === "erase" ? point : null, diameter_mm);
  }

  /** Show the mask after a change. */
  private update(): void {
    this.viewer.maskChanged();
    this.say("");
    this.showSteps();
  }

  private showSteps(): void {
    this.controls.showSteps(this.difference, this.brush.changeCount > 0, this.brush.undoneCount > 0);
    if (this.isSending) this.controls.allowSaving(false);
  }

  private amount(voxels: number): string {
    return this.scene.inMm ? `${(voxels * voxelMl(this.scene.grid)).toFixed(2)} ml` : `${voxels} px`;
  }
}
