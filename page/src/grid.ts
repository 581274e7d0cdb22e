/** The voxel grid of a view: x to the patient's left, y to the back, z to the head; the slices lie as on the screen. */

export type Voxel = [number, number, number];
export type Axis = 0 | 1 | 2;

export interface Grid {
  /** Voxels along x, y, z; x is the fastest. */
  dims: Voxel;
  /** Size of a voxel; in mm where the file states it, else 1. */
  spacing_mm: Voxel;
}

export const clamp = (value: number, low: number, high: number): number => Math.min(high, Math.max(low, value));

export function voxelIndex({ dims }: Grid, [x, y, z]: Voxel): number {
  return x + dims[0] * (y + dims[1] * z);
}

/** The voxel of the grid nearest to a position in voxels. */
export function nearestVoxel({ dims }: Grid, at: readonly number[]): Voxel {
  return at.map((n, axis) => clamp(Math.round(n), 0, dims[axis]! - 1)) as Voxel;
}

export function voxelMl({ spacing_mm }: Grid): number {
  return (spacing_mm[0] * spacing_mm[1] * spacing_mm[2]) / 1000;
}
