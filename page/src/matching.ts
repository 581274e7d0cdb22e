/** Places that belong together in two scans of one patient. */

import type { Axis, Grid, Voxel } from "./grid";

/** A scan that another is matched with. */
export interface Matched {
  grid: Grid;
  /** The lowest and the highest slice with lung. */
  lungs: [number, number];
}

/** The point of a scan at the same distance from its middle in a slice, and at the same share of the lungs' height. */
export function counterpart(at: Voxel, from: Matched, to: Matched): Voxel {
  const inSlice = (axis: Axis): number => {
    const distance_mm = (at[axis] - (from.grid.dims[axis] - 1) / 2) * from.grid.spacing_mm[axis];
    return (to.grid.dims[axis] - 1) / 2 + distance_mm / to.grid.spacing_mm[axis];
  };
  const share = (at[2] - from.lungs[0]) / Math.max(1, from.lungs[1] - from.lungs[0]);
  return [inSlice(0), inSlice(1), to.lungs[0] + share * (to.lungs[1] - to.lungs[0])];
}
