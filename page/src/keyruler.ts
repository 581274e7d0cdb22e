/** A ruler that is laid by keys: arrows move its first end until it is set, then its second one. */

import { announce } from "./dom";
import { type Axis, nearestVoxel, type Voxel } from "./grid";
import type { Pane } from "./pane";
import { arrowStep, PLANES } from "./planes";
import type { Viewer } from "./viewer";

const FAST = 10; // voxels that an arrow moves an end with Shift

export class KeyRuler {
  private state: { pane: Pane; from: Voxel | null; at: Voxel } | null = null;

  constructor(private readonly viewer: Viewer) {}

  /** Handle a key on the scan; returns whether the ruler has used it. */
  handleKey(event: KeyboardEvent): boolean {
    if (event.ctrlKey || event.metaKey) return false;
    if (!this.state) return event.key.toLowerCase() === "m" && this.begin();
    const { pane } = this.state;
    const step = arrowStep(pane.name, event.key);
    if (step) this.move(step[0], step[1] * (event.shiftKey ? FAST : 1));
    else if (event.key === "Enter" || event.key === " " || event.key.toLowerCase() === "m") this.set();
    else if (event.key === "Escape") this.leave("The ruler is put away.");
    else return false;
    return true;
  }

  /** Put the ruler away, where another scan or tool takes over. */
  leave(words = ""): void {
    if (!this.state) return;
    this.state.pane.draft = null;
    this.state = null;
    this.viewer.redraw();
    if (words) announce(words);
  }

  private begin(): boolean {
    const { scene, focusedPane: pane } = this.viewer;
    if (!scene || this.viewer.layout === "3d") return false;
    this.state = { pane, from: null, at: [...scene.cursor] };
    this.show();
    announce("Ruler: arrows move its first end, Enter sets it, Escape puts it away.");
    return true;
  }

  private move(axis: Axis, voxels: number): void {
    const { state } = this;
    const { scene } = this.viewer;
    if (!state || !scene) return;
    state.at = nearestVoxel(scene.grid, state.at.map((n, i) => (i === axis ? n + voxels : n)));
    this.show();
  }

  /** Set the end that is being moved. */
  private set(): void {
    const { state } = this;
    const { scene } = this.viewer;
    if (!state || !scene) return;
    if (!state.from) {
      state.from = [...state.at];
      return announce("First end set: arrows move the second one, Enter sets it.");
    }
    const { pane, from, at } = state;
    this.viewer.keepRuler(pane, { plane: pane.name, slice: at[PLANES[pane.name].normal], from, to: at });
    this.leave(`${scene.length(from, at).toFixed(1)} ${scene.unit}`);
  }

  private show(): void {
    const { state } = this;
    const { scene } = this.viewer;
    if (!state || !scene) return;
    const { pane, from, at } = state;
    pane.draft = { plane: pane.name, slice: at[PLANES[pane.name].normal], from: from ?? at, to: at };
    this.viewer.redraw();
  }
}
