/** Changes to a mask that can be undone and redone: strokes of a round brush, whole lesions, filled slices. */

import type { Axis, Grid, Voxel } from "./grid";
import { voxelIndex } from "./grid";
import { fillBetween } from "./interpolation";

interface Change {
  indices: number[];
  before: number[];
  after: number[];
}

export interface Stroke {
  /** Axis across the slice that is painted; the brush never leaves the slice. */
  normal: Axis;
  diameter_mm: number;
  erase: boolean;
  /** Lesion value that is painted, from 1. */
  value: number;
  /** Paints only voxels within these HU; null: all of them. */
  range_hu: readonly [number, number] | null;
}

export class Brush {
  private readonly undone: Change[] = [];
  private readonly changes: Change[] = [];
  private change: Change | null = null;
  private last: Voxel | null = null;
  private readonly original: Uint8Array;
  /** Voxels that are lesion now and were not, and the other way round. */
  private added = 0;
  private removed = 0;

  /** @param voxels The mask, which is changed in place. */
  constructor(
    private readonly voxels: Uint8Array,
    private readonly hu: Int16Array,
    private readonly grid: Grid,
  ) {
    this.original = voxels.slice();
  }

  get changeCount(): number {
    return this.changes.length;
  }

  get undoneCount(): number {
    return this.undone.length;
  }

  /** Numbers of voxels that were added to the mask and removed from it, compared with how it was opened. */
  get difference(): { added: number; removed: number } {
    return { added: this.added, removed: this.removed };
  }

  /** Start or continue a stroke: paint everything within the brush on its way from the last voxel to this one. */
  paint(to: Voxel, stroke: Stroke): void {
    this.change ??= { indices: [], before: [], after: [] };
    const { normal, diameter_mm } = stroke;
    const from = this.last && this.last[normal] === to[normal] ? this.last : to;
    this.last = to;
    const [u, v] = [0, 1, 2].filter((axis) => axis !== normal) as [Axis, Axis];
    const { dims, spacing_mm } = this.grid;
    const low = (axis: Axis): number =>
      Math.max(0, Math.ceil(Math.min(from[axis], to[axis]) - diameter_mm / 2 / spacing_mm[axis]));
    const high = (axis: Axis): number =>
      Math.min(dims[axis] - 1, Math.floor(Math.max(from[axis], to[axis]) + diameter_mm / 2 / spacing_mm[axis]));
    const voxel: Voxel = [...to];
    for (voxel[v] = low(v); voxel[v] <= high(v); voxel[v]++) {
      for (voxel[u] = low(u); voxel[u] <= high(u); voxel[u]++) {
        if (this.distance_mm(voxel, from, to, u, v) <= diameter_mm / 2) this.touch(voxel, stroke);
      }
    }
    this.touch(to, stroke); // a brush smaller than a voxel still paints one
  }

  /** End the stroke; returns whether it changed anything. */
  lift(): boolean {
    const { change } = this;
    this.change = this.last = null;
    return change !== null && this.keep(change);
  }

  /** Take back what was begun and not ended. */
  cancel(): void {
    if (this.change) this.takeBack(this.change);
    this.change = this.last = null;
  }

  /** Undo the last change; returns whether there was one. */
  undo(): boolean {
    const change = this.changes.pop();
    if (!change) return false;
    this.takeBack(change);
    this.undone.push(change);
    return true;
  }

  /** Do the last undone change again; returns whether there was one. */
  redo(): boolean {
    const change = this.undone.pop();
    if (!change) return false;
    this.apply(change);
    this.changes.push(change);
    return true;
  }

  /** Remove the lesion at a voxel, or all others, until it is ended like a stroke; returns whether the mask changed. */
  takeLesion(at: Voxel, what: "remove" | "keep"): boolean {
    if (!this.voxels[voxelIndex(this.grid, at)]) return false;
    const lesion = connected(this.voxels, this.grid, at);
    const indices = what === "remove" ? [...lesion] : lesionVoxels(this.voxels).filter((index) => !lesion.has(index));
    this.change = this.set(indices, 0);
    return indices.length > 0;
  }

  /** Fill the slices between the nearest two, around one slice, to which lesion was added; returns the number filled. */
  interpolate(normal: Axis, slice: number, value: number): number {
    const isAdded = (index: number): boolean => this.voxels[index] !== 0 && this.original[index] === 0;
    const filled = fillBetween(this.grid, normal, slice, isAdded);
    const change = this.set([...filled.indices].filter((index) => !this.voxels[index]), value);
    return this.keep(change) ? filled.slices : 0;
  }

  private set(indices: number[], value: number): Change {
    const change = { indices, before: indices.map((index) => this.voxels[index]!), after: indices.map(() => value) };
    this.apply(change);
    return change;
  }

  private keep(change: Change): boolean {
    if (change.indices.length === 0) return false;
    this.changes.push(change);
    this.undone.length = 0;
    return true;
  }

  private apply({ indices, after }: Change): void {
    for (let i = 0; i < indices.length; i++) this.write(indices[i]!, after[i]!);
  }

  /** Undo a change from its end: the mode may be changed by a key while one is drawn, and a voxel be in it twice. */
  private takeBack({ indices, before }: Change): void {
    for (let i = indices.length - 1; i >= 0; i--) this.write(indices[i]!, before[i]!);
  }

  private write(index: number, value: number): void {
    const [was, is, first] = [this.voxels[index] !== 0, value !== 0, this.original[index] !== 0];
    if (was !== is) {
      if (first) this.removed += is ? -1 : 1;
      else this.added += is ? 1 : -1;
    }
    this.voxels[index] = value;
  }

  private touch(voxel: Voxel, { erase, value, range_hu }: Stroke): void {
    const index = voxelIndex(this.grid, voxel);
    const before = this.voxels[index]!;
    if (erase === (before === 0)) return; // nothing to erase, or already lesion of some class
    const hu = this.hu[index]!;
    if (range_hu && (hu < range_hu[0] || hu > range_hu[1])) return;
    this.change!.indices.push(index);
    this.change!.before.push(before);
    this.change!.after.push(erase ? 0 : value);
    this.write(index, erase ? 0 : value);
  }

  /** Distance of a voxel from the line between two others, in the plane of the axes u and v. */
  private distance_mm(voxel: Voxel, from: Voxel, to: Voxel, u: Axis, v: Axis): number {
    const mm = this.grid.spacing_mm;
    const along = [(to[u] - from[u]) * mm[u], (to[v] - from[v]) * mm[v]] as const;
    const offset = [(voxel[u] - from[u]) * mm[u], (voxel[v] - from[v]) * mm[v]] as const;
    const length2 = along[0] ** 2 + along[1] ** 2;
    const share = length2 === 0 ? 0 : Math.min(1, Math.max(0, (along[0] * offset[0] + along[1] * offset[1]) / length2));
    return Math.hypot(offset[0] - share * along[0], offset[1] - share * along[1]);
  }
}

function lesionVoxels(voxels: Uint8Array): number[] {
  const found: number[] = [];
  for (let i = 0; i < voxels.length; i++) if (voxels[i]) found.push(i);
  return found;
}

/** The indices of all voxels that are connected with one over faces, edges or corners. */
export function connected(voxels: Uint8Array, grid: Grid, start: Voxel): Set<number> {
  const [nx, ny, nz] = grid.dims;
  const first = voxelIndex(grid, start);
  const found = new Set([first]);
  const waiting = [first];
  while (waiting.length) {
    const index = waiting.pop()!;
    const [x, y, z] = [index % nx, Math.floor(index / nx) % ny, Math.floor(index / (nx * ny))];
    for (let k = Math.max(0, z - 1); k <= Math.min(nz - 1, z + 1); k++) {
      for (let j = Math.max(0, y - 1); j <= Math.min(ny - 1, y + 1); j++) {
        for (let i = Math.max(0, x - 1); i <= Math.min(nx - 1, x + 1); i++) {
          const next = i + nx * (j + ny * k);
          if (!voxels[next] || found.has(next)) continue;
          found.add(next);
          waiting.push(next);
        }
      }
    }
  }
  return found;
}
