import { expect, it } from "vitest";
import { Brush, type Grid } from "../src/brush";

const grid: Grid = { dims: [9, 9, 3], spacing_mm: [1, 2, 5] };
const at = (x: number, y: number, z: number): number => x + 9 * (y + 9 * z);
const painted = (voxels: Uint8Array): number[] => [...voxels.keys()].filter((i) => voxels[i] !== 0);

it("is round in mm and stays in its slice", () => {
  const voxels = new Uint8Array(9 * 9 * 3);
  new Brush(voxels, grid).paint([4, 4, 1], 2, 4, false);
  // 2 mm around: two voxels along x, one along y
  expect(painted(voxels)).toEqual([at(4, 3, 1), at(2, 4, 1), at(3, 4, 1), at(4, 4, 1), at(5, 4, 1), at(6, 4, 1), at(4, 5, 1)]);
});

it("paints at least the voxel it is on, and nothing beyond the edge", () => {
  const voxels = new Uint8Array(9 * 9 * 3);
  const brush = new Brush(voxels, grid);
  brush.paint([0, 0, 2], 0, 0.1, false);
  expect(painted(voxels)).toEqual([at(0, 0, 2)]);
  expect(brush.paint([0, 8, 2], 1, 100, false)).toEqual([0, 2]);
  expect(painted(voxels)).toHaveLength(1 + 27);
});

it("leaves no gap between two positions", () => {
  const voxels = new Uint8Array(9 * 9 * 3);
  const brush = new Brush(voxels, grid);
  brush.paint([1, 4, 0], 2, 1, false);
  brush.paint([7, 4, 0], 2, 1, false);
  expect(painted(voxels)).toEqual([1, 2, 3, 4, 5, 6, 7].map((x) => at(x, 4, 0)));
});

it("undoes strokes one by one and restores the classes that were there", () => {
  const voxels = new Uint8Array(9 * 9 * 3);
  voxels[at(4, 4, 1)] = 2;
  const brush = new Brush(voxels, grid);
  brush.paint([4, 4, 1], 2, 2, false);
  expect(voxels[at(4, 4, 1)]).toBe(2); // already lesion: it keeps its class
  expect(brush.lift()).toBe(true);
  brush.paint([4, 4, 1], 2, 2, true);
  brush.lift();
  expect(painted(voxels)).toEqual([]);
  brush.paint([8, 8, 2], 2, 1, true); // nothing there to erase
  expect(brush.lift()).toBe(false);
  expect(brush.strokeCount).toBe(2);
  expect(brush.undo()).toEqual([1, 1]);
  brush.undo();
  expect(painted(voxels)).toEqual([at(4, 4, 1)]);
  expect(voxels[at(4, 4, 1)]).toBe(2);
  expect(brush.undo()).toBeNull();
});
