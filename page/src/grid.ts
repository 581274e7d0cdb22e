/** The voxel grid of a view: x to the patient's left, y to the back, z to the head; the slices lie as on the screen. */

export type Voxel = [number, number, number];
export type Axis = 0 | 1 | 2;

export interface Grid {
  /** Voxels along x, y, z; x is the fastest. */
  dims: Voxel;
  /** Size of a voxel; in mm where the file states it, else 1. */
  spacing_mm: Voxel;
  /** Where the file states them, the steps in mm from voxel to voxel along x, y, z, which a tilted gantry shears. */
  steps_mm?: [Voxel, Voxel, Voxel];
}

export const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

export function voxelIndex({ dims }: Grid, [x, y, z]: Voxel): number {
  return x + dims[0] * (y + dims[1] * z);
}

/** The voxel of the grid nearest to a position in voxels. */
export function nearestVoxel({ dims }: Grid, at: readonly number[]): Voxel {
  return at.map((n, axis) => clamp(Math.round(n), 0, dims[axis]! - 1)) as Voxel;
}

/** The steps from voxel to voxel along x, y, z: at right angles where the file does not state them. */
function steps({ spacing_mm: [dx, dy, dz], steps_mm }: Grid): [Voxel, Voxel, Voxel] {
  return steps_mm ?? [[dx, 0, 0], [0, dy, 0], [0, 0, dz]];
}

export function distance_mm(grid: Grid, from: Voxel, to: Voxel): number {
  const [x, y, z] = steps(grid);
  const [dx, dy, dz] = [to[0] - from[0], to[1] - from[1], to[2] - from[2]];
  return Math.hypot(...x.map((_, i) => dx * x[i]! + dy * y[i]! + dz * z[i]!));
}

export function voxelMl(grid: Grid): number {
  const [[a, b, c], [d, e, f], [g, h, i]] = steps(grid);
  return Math.abs(a * (e * i - f * h) + b * (f * g - d * i) + c * (d * h - e * g)) / 1000;
}
