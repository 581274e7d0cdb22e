import { expect, it } from "vitest";
import { Brush, connected, type Stroke } from "../src/brush";
import type { Grid } from "../src/grid";
import { fillBetween } from "../src/interpolation";

const grid: Grid = { dims: [9, 9, 3], spacing_mm: [1, 2, 5] };
const count = 9 * 9 * 3;
const at = (x: number, y: number, z: number): number => x + 9 * (y + 9 * z);
const painted = (voxels: Uint8Array): number[] => [...voxels.keys()].filter((i) => voxels[i] !== 0);
const stroke = (changes: Partial<Stroke> = {}): Stroke => ({
  ...{ normal: 2, diameter_mm: 4, erase: false, value: 1, range_hu: null },
  ...changes,
});
const brushOn = (voxels: Uint8Array, hu = new Int16Array(count)): Brush => new Brush(voxels, hu, grid);

it("is round in mm and stays in its slice", () => {
  const voxels = new Uint8Array(count);
  brushOn(voxels).paint([4, 4, 1], stroke());
  // 2 mm around: two voxels along x, one along y
  expect(painted(voxels)).toEqual([at(4, 3, 1), at(2, 4, 1), at(3, 4, 1), at(4, 4, 1), at(5, 4, 1), at(6, 4, 1), at(4, 5, 1)]);
});

it("paints at least the voxel it is on, and nothing beyond the edge", () => {
  const voxels = new Uint8Array(count);
  const brush = brushOn(voxels);
  brush.paint([0, 0, 2], stroke({ normal: 0, diameter_mm: 0.1 }));
  expect(painted(voxels)).toEqual([at(0, 0, 2)]);
  brush.paint([0, 8, 2], stroke({ normal: 1, diameter_mm: 100 }));
  expect(painted(voxels)).toHaveLength(1 + 27);
});

it("leaves no gap between two positions", () => {
  const voxels = new Uint8Array(count);
  const brush = brushOn(voxels);
  brush.paint([1, 4, 0], stroke({ diameter_mm: 1 }));
  brush.paint([7, 4, 0], stroke({ diameter_mm: 1 }));
  expect(painted(voxels)).toEqual([1, 2, 3, 4, 5, 6, 7].map((x) => at(x, 4, 0)));
});

it("undoes and redoes strokes, restores classes, and counts what has changed", () => {
  const voxels = new Uint8Array(count);
  voxels[at(4, 4, 1)] = 2;
  const brush = brushOn(voxels);
  brush.paint([4, 4, 1], stroke({ diameter_mm: 2 }));
  expect(voxels[at(4, 4, 1)]).toBe(2); // already lesion: it keeps its class
  expect(brush.lift()).toBe(true);
  expect(brush.difference).toEqual({ added: 2, removed: 0 });
  brush.paint([4, 4, 1], stroke({ diameter_mm: 2, erase: true }));
  brush.lift();
  expect(painted(voxels)).toEqual([]);
  expect(brush.difference).toEqual({ added: 0, removed: 1 });
  brush.paint([8, 8, 2], stroke({ diameter_mm: 1, erase: true })); // nothing there to erase
  expect(brush.lift()).toBe(false);
  expect(brush.undo()).toBe(true);
  expect(brush.redo()).toBe(true);
  expect(painted(voxels)).toEqual([]);
  brush.undo();
  brush.undo();
  expect(painted(voxels)).toEqual([at(4, 4, 1)]);
  expect(voxels[at(4, 4, 1)]).toBe(2);
  expect(brush.undo()).toBe(false);
  brush.paint([1, 1, 1], stroke());
  brush.lift();
  expect(brush.redo()).toBe(false); // a new stroke ends what could be done again
});

it("paints only voxels within the chosen HU", () => {
  const hu = new Int16Array(count).fill(-900);
  hu[at(4, 4, 1)] = -500;
  const voxels = new Uint8Array(count);
  brushOn(voxels, hu).paint([4, 4, 1], stroke({ diameter_mm: 20, range_hu: [-700, 0] }));
  expect(painted(voxels)).toEqual([at(4, 4, 1)]);
});

it("takes back a stroke that was begun by the first of two fingers", () => {
  const voxels = new Uint8Array(count);
  const brush = brushOn(voxels);
  brush.paint([4, 4, 1], stroke());
  brush.cancel();
  expect(painted(voxels)).toEqual([]);
  expect(brush.changeCount).toBe(0);
});

it("takes back a lesion that was removed by the first of two fingers, and offers it neither to undo nor to redo", () => {
  const voxels = new Uint8Array(count);
  voxels[at(4, 4, 1)] = 2;
  const brush = brushOn(voxels);
  for (const what of ["remove", "keep"] as const) {
    brush.takeLesion([4, 4, 1], what);
    brush.cancel();
    expect(voxels[at(4, 4, 1)]).toBe(2);
    expect([brush.changeCount, brush.undoneCount]).toEqual([0, 0]);
  }
  brush.takeLesion([4, 4, 1], "remove");
  brush.lift();
  expect([brush.changeCount, painted(voxels).length]).toEqual([1, 0]);
});

it("undoes a stroke whose mode was changed on its way", () => {
  const voxels = new Uint8Array(count);
  const brush = brushOn(voxels);
  brush.paint([4, 4, 1], stroke());
  brush.paint([4, 4, 1], stroke({ erase: true }));
  brush.lift();
  brush.undo();
  expect(painted(voxels)).toEqual([]);
  expect(brush.difference).toEqual({ added: 0, removed: 0 });
});

it("removes the lesion at a voxel, over corners too, or all others", () => {
  const voxels = new Uint8Array(count);
  const [one, other] = [[at(1, 1, 0), at(2, 2, 1)], [at(7, 7, 2)]];
  for (const index of [...one, ...other]) voxels[index] = 1;
  expect([...connected(voxels, grid, [1, 1, 0])].sort()).toEqual([...one].sort());
  const brush = brushOn(voxels);
  expect(brush.takeLesion([1, 1, 0], "remove")).toBe(true);
  brush.lift();
  expect(painted(voxels)).toEqual(other);
  brush.undo();
  brush.takeLesion([2, 2, 1], "keep");
  brush.lift();
  expect(painted(voxels)).toEqual(one);
  expect(brush.takeLesion([5, 5, 0], "remove")).toBe(false);
});

it("fills the slice between two that were drawn, halfway between their outlines", () => {
  const voxels = new Uint8Array(count);
  const brush = brushOn(voxels);
  brush.paint([4, 4, 0], stroke({ diameter_mm: 8 }));
  brush.lift();
  brush.paint([4, 4, 2], stroke({ diameter_mm: 4 }));
  brush.lift();
  expect(brush.interpolate(2, 1, 1)).toBe(1);
  const middle = painted(voxels).filter((index) => index >= 81 && index < 162);
  const width = middle.filter((index) => Math.floor((index - 81) / 9) === 4).length;
  expect(width).toBeGreaterThan(5 - 1);
  expect(width).toBeLessThan(9);
  expect(brush.interpolate(2, 1, 1)).toBe(0); // nothing is left to fill
  expect(fillBetween(grid, 2, 1, () => false).slices).toBe(0);
});
