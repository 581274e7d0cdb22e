/** Surfaces of masks as triangles, by surface nets on a coarser grid of shares. */

import type { Grid, Voxel } from "./grid";

export interface Surface {
  /** Three coordinates for each corner, in mm from the middle of the grid: left, back, head. */
  positions: Float32Array<ArrayBuffer>;
  normals: Float32Array<ArrayBuffer>;
  /** Three corners for each triangle. */
  triangles: Uint32Array<ArrayBuffer>;
}

/** Shares from 0 to 1 on a coarser grid with an empty rim. */
interface Shares {
  values: Float32Array;
  dims: Voxel;
  /** Voxels of the mask in each cell along the axes. */
  factors: Voxel;
  /** The voxel with which the first cell inside the rim begins. */
  first: Voxel;
}

/** The surfaces around the voxels of each of some values, on cells of about `cell_mm`, at a share of `level`. */
export function surfacesOf(mask: Uint8Array, grid: Grid, values: number[], cell_mm: number, level: number): Surface[] {
  const box = bounds(mask, grid);
  if (!box) return values.map(() => ({ positions: new Float32Array(), normals: new Float32Array(), triangles: new Uint32Array() }));
  return values.map((value) => surfaceNets(blurred(shares(mask, grid, box, value, cell_mm)), grid, level));
}

/** The first and the last index along each axis of the voxels that are not 0; null if there are none. */
function bounds(mask: Uint8Array, grid: Grid): [Voxel, Voxel] | null {
  const [nx, ny, nz] = grid.dims;
  const [low, high]: [Voxel, Voxel] = [[nx, ny, nz], [-1, -1, -1]];
  for (let z = 0, index = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      for (let x = 0; x < nx; x++, index++) {
        if (mask[index] === 0) continue;
        if (x < low[0]) low[0] = x;
        if (x > high[0]) high[0] = x;
        if (y < low[1]) low[1] = y;
        if (y > high[1]) high[1] = y;
        if (z < low[2]) low[2] = z;
        high[2] = z;
      }
    }
  }
  return high[0] < 0 ? null : [low, high];
}

function shares(mask: Uint8Array, grid: Grid, box: [Voxel, Voxel], value: number, cell_mm: number): Shares {
  const [[x0, y0, z0], [x1, y1, z1]] = box;
  const factors = grid.spacing_mm.map((mm) => Math.max(1, Math.round(cell_mm / mm))) as Voxel;
  const dims = box[1].map((n, axis) => Math.ceil((n - box[0][axis]! + 1) / factors[axis]!) + 4) as Voxel;
  const values = new Float32Array(dims[0] * dims[1] * dims[2]);
  const share = 1 / (factors[0] * factors[1] * factors[2]);
  for (let z = z0; z <= z1; z++) {
    const layer = dims[0] * dims[1] * (Math.floor((z - z0) / factors[2]) + 2);
    for (let y = y0; y <= y1; y++) {
      const row = layer + dims[0] * (Math.floor((y - y0) / factors[1]) + 2) + 2;
      const start = grid.dims[0] * (y + grid.dims[1] * z);
      for (let x = x0; x <= x1; x++) if (mask[start + x] === value) values[row + Math.floor((x - x0) / factors[0])]! += share;
    }
  }
  return { values, dims, factors, first: box[0] };
}

/** Smooth shares by (1 2 1) / 4 along each axis, which takes the steps out of the surface. */
function blurred({ values, dims, ...others }: Shares): Shares {
  const strides = [1, dims[0], dims[0] * dims[1]];
  let from = values;
  for (const stride of strides) {
    const to = new Float32Array(from.length);
    for (let i = stride; i < from.length - stride; i++) to[i] = (from[i - stride]! + 2 * from[i]! + from[i + stride]!) / 4;
    from = to;
  }
  return { values: from, dims, ...others };
}

/** One corner for each cell that the surface crosses, in the middle of its crossings; four of them make two triangles. */
function surfaceNets({ values, dims, factors, first }: Shares, grid: Grid, level: number): Surface {
  const [nx, ny, nz] = dims;
  const strides = [1, nx, nx * ny] as const;
  const cornerOf = new Int32Array(values.length).fill(-1);
  const positions: number[] = [];
  const normals: number[] = [];
  const triangles: number[] = [];
  const half = grid.dims.map((n, axis) => (n * grid.spacing_mm[axis]!) / 2);
  for (let z = 0; z < nz - 1; z++) {
    for (let y = 0; y < ny - 1; y++) {
      for (let x = 0; x < nx - 1; x++) {
        const index = x + nx * y + strides[2] * z;
        if (!isCrossed(values, index, strides, level)) continue;
        const corner = crossing(values, index, strides, level);
        cornerOf[index] = positions.length / 3;
        [x, y, z].forEach((n, axis) => {
          const voxel = first[axis]! + (n + corner.at[axis]! - 2 + 0.5) * factors[axis]!;
          positions.push(voxel * grid.spacing_mm[axis]! - half[axis]!);
        });
        normals.push(...corner.normal);
      }
    }
  }
  for (let index = strides[2] + nx + 1; index < values.length; index++) {
    if (cornerOf[index]! < 0) continue;
    for (let axis = 0; axis < 3; axis++) {
      const [u, v] = [strides[(axis + 1) % 3]!, strides[(axis + 2) % 3]!];
      const [isInside, isNextInside] = [values[index]! >= level, values[index + strides[axis]!]! >= level];
      const corners = [index, index - u, index - u - v, index - v].map((at) => cornerOf[at]!);
      if (isInside === isNextInside || corners.some((corner) => corner < 0)) continue;
      const [a, b, c, d] = (isInside ? corners : corners.reverse()) as [number, number, number, number];
      triangles.push(a, b, c, a, c, d);
    }
  }
  return {
    positions: Float32Array.from(positions),
    normals: Float32Array.from(normals),
    triangles: Uint32Array.from(triangles),
  };
}

/** Whether the cube whose lowest corner is `index` has corners inside and outside. */
function isCrossed(values: Float32Array, index: number, [dx, dy, dz]: readonly [number, number, number], level: number): boolean {
  const inside = values[index]! >= level;
  const differs = (at: number): boolean => values[index + at]! >= level !== inside;
  if (differs(dx) || differs(dy) || differs(dz)) return true;
  return differs(dx + dy) || differs(dx + dz) || differs(dy + dz) || differs(dx + dy + dz);
}

/** Where the surface crosses the cube whose lowest corner is `index`, and its normal there. */
function crossing(
  values: Float32Array,
  index: number,
  strides: readonly [number, number, number],
  level: number,
): { at: Voxel; normal: Voxel } {
  const corners = Array.from({ length: 8 }, (_, i) => values[index + (i & 1) * strides[0] + ((i >> 1) & 1) * strides[1] + (i >> 2) * strides[2]]!);
  const at: Voxel = [0, 0, 0];
  let crossings = 0;
  for (let i = 0; i < 8; i++) {
    for (let axis = 0; axis < 3; axis++) {
      const other = i | (1 << axis);
      if (other === i || corners[i]! >= level === corners[other]! >= level) continue;
      const share = (level - corners[i]!) / (corners[other]! - corners[i]!);
      for (let k = 0; k < 3; k++) at[k]! += k === axis ? share : (i >> k) & 1;
      crossings++;
    }
  }
  const normal = [0, 1, 2].map((axis) =>
    corners.reduce((sum, value, i) => sum + ((i >> axis) & 1 ? -value : value), 0),
  ) as Voxel;
  const length = Math.hypot(...normal) || 1;
  return { at: at.map((n) => n / crossings) as Voxel, normal: normal.map((n) => n / length) as Voxel };
}
