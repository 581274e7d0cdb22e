/** Thick slices that can be shown in place of single ones. */

import type { Projection } from "./planes";

/** Kind of projection and thickness in mm, and what that is called. */
export const SLABS: [string, string][] = [
  ["none 1", "Single slice"],
  ["mean 5", "Mean of 5 mm"],
  ["maximum 10", "MIP 10 mm"],
  ["maximum 20", "MIP 20 mm"],
  ["maximum 50", "MIP 50 mm"],
  ["minimum 10", "MinIP 10 mm"],
  ["minimum 20", "MinIP 20 mm"],
];
export const PROJECTIONS: Record<Projection, string> = { none: "", mean: "mean", maximum: "MIP", minimum: "MinIP" };
