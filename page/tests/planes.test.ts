import { expect, it } from "vitest";
import { outline } from "../src/contour";
import type { Grid } from "../src/grid";
import { cutPlane, pointIn, projectedAt, slabRange, voxelAt } from "../src/planes";
import { sidesAt } from "../src/solid";
import { surfacesOf } from "../src/surface";

const grid: Grid = { dims: [2, 3, 4], spacing_mm: [1, 1, 5] };
const volume = Int16Array.from({ length: 24 }, (_, i) => i);
const slice = { projection: "none", thickness_mm: 1 } as const;

it("cuts planes as they lie on the screen: the head is up in coronal and sagittal ones", () => {
  expect([...cutPlane(volume, grid, "axial", 1, slice)]).toEqual([6, 7, 8, 9, 10, 11]);
  expect([...cutPlane(volume, grid, "coronal", 2, slice)]).toEqual([22, 23, 16, 17, 10, 11, 4, 5]);
  expect([...cutPlane(volume, grid, "sagittal", 1, slice)].slice(0, 3)).toEqual([19, 21, 23]);
  for (const plane of ["axial", "coronal", "sagittal"] as const) {
    const at = voxelAt(grid, plane, 1, 2, 0);
    expect(pointIn(grid, plane, at)).toEqual([1, 2]);
  }
});

it("projects a slab by its greatest, least and mean values", () => {
  const slab = (projection: "maximum" | "minimum" | "mean") => ({ projection, thickness_mm: 10 });
  expect(slabRange(grid, 2, 1, slab("maximum"))).toEqual([1, 3]);
  expect(slabRange(grid, 2, 3, slab("maximum"))).toEqual([3, 4]);
  expect(cutPlane(volume, grid, "axial", 1, slab("maximum"))[0]).toBe(12);
  expect(cutPlane(volume, grid, "axial", 1, slab("minimum"))[0]).toBe(6);
  expect(cutPlane(volume, grid, "axial", 1, slab("mean"))[0]).toBe(9);
});

it("reads at a voxel the value that the plane shows there", () => {
  const hu = Int16Array.from({ length: 24 }, (_, i) => ((i * 7919) % 1500) - 1000);
  for (const plane of ["axial", "coronal", "sagittal"] as const) {
    for (const projection of ["none", "maximum", "minimum", "mean"] as const) {
      const slab = { projection, thickness_mm: 10 };
      const [column, row] = pointIn(grid, plane, [1, 2, 1]);
      const width = plane === "sagittal" ? 3 : 2;
      const slice = { axial: 1, coronal: 2, sagittal: 1 }[plane];
      expect(projectedAt(hu, grid, plane, [1, 2, 1], slab)).toBe(cutPlane(hu, grid, plane, slice, slab)[row * width + column]);
    }
  }
});

it("outlines a mask in a closed line around its pixels", () => {
  const mask = Uint8Array.of(0, 0, 0, 0, 1, 0, 0, 0, 0);
  const segments = outline(mask, 3, 3);
  expect(segments).toHaveLength(4 * 4);
  const points = new Set(Array.from({ length: 8 }, (_, i) => segments.slice(2 * i, 2 * i + 2).join()));
  expect(points).toEqual(new Set(["1,1.5", "2,1.5", "1.5,1", "1.5,2"]));
  expect(outline(mask, 3, 3, (value) => value === 2)).toEqual([]);
});

it("closes the surface of a ball around it, with normals to the outside", () => {
  const ball: Grid = { dims: [20, 20, 20], spacing_mm: [1, 1, 1] };
  const voxels = Uint8Array.from({ length: 8000 }, (_, i) => {
    const [x, y, z] = [i % 20, Math.floor(i / 20) % 20, Math.floor(i / 400)];
    return Math.hypot(x - 9.5, y - 9.5, z - 9.5) <= 6 ? 1 : 0;
  });
  const [surface, none] = surfacesOf(voxels, ball, [1, 2], 1, 0.5);
  const edges = new Map<string, number>();
  for (let i = 0; i < surface!.triangles.length; i += 3) {
    const corners = [...surface!.triangles.subarray(i, i + 3)];
    corners.forEach((from, k) => {
      const edge = [from, corners[(k + 1) % 3]!].sort((a, b) => a - b).join();
      edges.set(edge, (edges.get(edge) ?? 0) + 1);
    });
  }
  expect(new Set(edges.values())).toEqual(new Set([2]));
  for (let i = 0; i < surface!.positions.length; i += 3) {
    const [position, normal] = [surface!.positions.subarray(i, i + 3), surface!.normals.subarray(i, i + 3)];
    expect(Math.hypot(...position)).toBeGreaterThan(4.8);
    expect(Math.hypot(...position)).toBeLessThan(7.2);
    expect(position.reduce((sum, n, k) => sum + n * normal[k]!, 0)).toBeGreaterThan(0);
  }
  expect(none!.triangles).toHaveLength(0);
});

it("names the sides at the edges of the 3-D view, however far it was turned", () => {
  expect(sidesAt(25)).toEqual(["R", "L"]);
  expect(sidesAt(90)).toEqual(["P", "A"]); // from the patient's right
  expect(sidesAt(180)).toEqual(["L", "R"]);
  expect(sidesAt(-90)).toEqual(["A", "P"]);
  expect(sidesAt(-720)).toEqual(["R", "L"]);
});
