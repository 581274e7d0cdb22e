/** Cutting planes out of a volume, one voxel thick or as a projection through a slab. */

import { type Axis, clamp, type Grid, type Voxel, voxelIndex } from "./grid";

export type PlaneName = "axial" | "coronal" | "sagittal";
export type Projection = "none" | "maximum" | "minimum" | "mean";

/** A slab of slices around the one that is shown, and how it is projected. */
export interface Slab {
  projection: Projection;
  thickness_mm: number;
}

/** How a plane lies on the screen: the axes that run across and down, and the axis through it. */
export interface Plane {
  across: Axis;
  down: Axis;
  normal: Axis;
  /** Whether the axis `down` runs upwards on the screen, as z does. */
  upwards: boolean;
  /** Names of the left, right, upper and lower end of the screen. */
  ends: [string, string, string, string];
}

export const PLANES: Record<PlaneName, Plane> = {
  axial: { across: 0, down: 1, normal: 2, upwards: false, ends: ["R", "L", "A", "P"] },
  coronal: { across: 0, down: 2, normal: 1, upwards: true, ends: ["R", "L", "S", "I"] },
  sagittal: { across: 1, down: 2, normal: 0, upwards: true, ends: ["A", "P", "S", "I"] },
};

/** The slices of a slab around one slice: the first, and the one after the last. */
export function slabRange(grid: Grid, normal: Axis, slice: number, slab: Slab): [number, number] {
  const count = slab.projection === "none" ? 1 : Math.max(1, Math.round(slab.thickness_mm / grid.spacing_mm[normal]!));
  const first = clamp(slice - Math.floor((count - 1) / 2), 0, grid.dims[normal]! - 1);
  return [first, Math.min(grid.dims[normal]!, first + count)];
}

/** Cut a plane of voxels, row by row as on the screen. */
export function cutPlane<V extends Int16Array | Uint8Array>(
  voxels: V,
  grid: Grid,
  name: PlaneName,
  slice: number,
  slab: Slab,
): V {
  const { across, down, normal, upwards } = PLANES[name];
  const strides = [1, grid.dims[0], grid.dims[0] * grid.dims[1]] as const;
  const [width, height] = [grid.dims[across]!, grid.dims[down]!];
  const [first, end] = slabRange(grid, normal, slice, slab);
  const plane = new (voxels.constructor as new (length: number) => V)(width * height);
  const sums = slab.projection === "mean" && end - first > 1 ? new Int32Array(width * height) : null;
  for (let at = first; at < end; at++) {
    let target = 0;
    for (let row = 0; row < height; row++) {
      let source = at * strides[normal] + (upwards ? height - 1 - row : row) * strides[down];
      for (let column = 0; column < width; column++, source += strides[across], target++) {
        const value = voxels[source]!;
        if (sums) sums[target]! += value;
        else if (at === first) plane[target] = value;
        else if (slab.projection === "maximum" ? value > plane[target]! : value < plane[target]!) plane[target] = value;
      }
    }
  }
  if (sums) for (let i = 0; i < sums.length; i++) plane[i] = sums[i]! / (end - first);
  return plane;
}

/** The value at a voxel in a plane that is cut through it. */
export function projectedAt(voxels: Int16Array, grid: Grid, name: PlaneName, at: Voxel, slab: Slab): number {
  const { normal } = PLANES[name];
  const [first, end] = slabRange(grid, normal, at[normal], slab);
  const values: number[] = [];
  const place: Voxel = [...at];
  for (place[normal] = first; place[normal] < end; place[normal]++) values.push(voxels[voxelIndex(grid, place)]!);
  if (slab.projection === "mean") return Math.trunc(values.reduce((sum, value) => sum + value, 0) / values.length);
  return slab.projection === "maximum" ? Math.max(...values) : Math.min(...values);
}

/** Position in voxels of a point of a plane, in pixels of the plane from its upper left corner. */
export function voxelAt(grid: Grid, name: PlaneName, column: number, row: number, slice: number): Voxel {
  const { across, down, normal, upwards } = PLANES[name];
  const at: Voxel = [0, 0, 0];
  at[across] = column;
  at[down] = upwards ? grid.dims[down]! - 1 - row : row;
  at[normal] = slice;
  return at;
}

/** The axis along which an arrow key moves a point of a plane, and its direction; null for another key. */
export function arrowStep(name: PlaneName, key: string): [axis: Axis, direction: number] | null {
  const { across, down, upwards } = PLANES[name];
  const steps: Record<string, [Axis, number]> = {
    ArrowLeft: [across, -1],
    ArrowRight: [across, 1],
    ArrowUp: [down, upwards ? 1 : -1],
    ArrowDown: [down, upwards ? -1 : 1],
  };
  return steps[key] ?? null;
}

/** Column and row of a voxel in a plane: the inverse of `voxelAt`. */
export function pointIn(grid: Grid, name: PlaneName, at: readonly number[]): [number, number] {
  const { across, down, upwards } = PLANES[name];
  return [at[across]!, upwards ? grid.dims[down]! - 1 - at[down]! : at[down]!];
}
