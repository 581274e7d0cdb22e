import { expect, it } from "vitest";
import { distance_mm, type Grid, voxelMl } from "../src/grid";

it("measures along the axes of the voxels where they are at right angles", () => {
  const grid: Grid = { dims: [9, 9, 9], spacing_mm: [0.7, 0.7, 5] };
  expect(distance_mm(grid, [0, 1, 2], [0, 101, 12])).toBeCloseTo(Math.hypot(70, 50), 9);
  expect(voxelMl(grid)).toBeCloseTo(0.00245, 9);
});

it("measures what a tilted gantry has sheared as it lies in the patient", () => {
  const [cos, sin] = [Math.cos(Math.PI / 9), Math.sin(Math.PI / 9)]; // 20 degrees
  const grid: Grid = { dims: [9, 9, 9], spacing_mm: [0.7, 0.7, 5], steps_mm: [[0.7, 0, 0], [0, 0.7 * cos, 0.7 * sin], [0, 0, 5]] };
  expect(distance_mm(grid, [0, 0, 0], [0, 50, 0])).toBeCloseTo(35, 9);
  expect(distance_mm(grid, [0, 0, 0], [0, 70, 10])).toBeCloseTo(Math.hypot(49 * cos, 49 * sin + 50), 9);
  expect(distance_mm(grid, [0, 70, 10], [0, 0, 0])).toBeCloseTo(Math.hypot(49 * cos, 49 * sin + 50), 9);
  expect(voxelMl(grid)).toBeCloseTo(0.00245 * cos, 9);
});
