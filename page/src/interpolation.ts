/** Filling the slices between two that were drawn, by interpolating the distances to their outlines. */

import type { Axis, Grid } from "./grid";

const FARTHEST = 40; // slices from the one that is shown to one that was drawn

export interface Filled {
  indices: Set<number>;
  /** Number of slices between the two. */
  slices: number;
}

/** The voxels that fill the gap between the nearest drawn slices below and above `slice`, or at it.
 *
 * @param isDrawn Whether the voxel with an index was drawn.
 */
export function fillBetween(grid: Grid, normal: Axis, slice: number, isDrawn: (index: number) => boolean): Filled {
  const nothing = { indices: new Set<number>(), slices: 0 };
  const strides = [1, grid.dims[0], grid.dims[0] * grid.dims[1]] as const;
  const [u, v] = [0, 1, 2].filter((axis) => axis !== normal) as [Axis, Axis];
  const [width, height] = [grid.dims[u], grid.dims[v]];
  const cut = (at: number): Uint8Array | null => {
    if (at < 0 || at >= grid.dims[normal]) return null;
    const plane = new Uint8Array(width * height);
    let any = false;
    for (let row = 0, i = 0; row < height; row++) {
      for (let column = 0; column < width; column++, i++) {
        if (isDrawn(at * strides[normal] + row * strides[v] + column * strides[u])) any = Boolean((plane[i] = 1));
      }
    }
    return any ? plane : null;
  };
  const find = (step: 1 | -1, from: number): [number, Uint8Array] | null => {
    for (let at = from; Math.abs(at - slice) <= FARTHEST; at += step) {
      const plane = cut(at);
      if (plane) return [at, plane];
    }
    return null;
  };
  const below = find(-1, slice);
  const above = below && find(1, Math.max(slice, below[0] + 1));
  if (!below || !above || above[0] - below[0] < 2) return nothing;
  const size = [grid.spacing_mm[u], grid.spacing_mm[v]] as const;
  const [low, high] = [below, above].map(([, plane]) => signedDistance(plane, width, height, size)) as [Float32Array, Float32Array];
  const indices = new Set<number>();
  for (let at = below[0] + 1; at < above[0]; at++) {
    const share = (at - below[0]) / (above[0] - below[0]);
    for (let i = 0; i < low.length; i++) {
      if ((1 - share) * low[i]! + share * high[i]! >= 0) continue;
      indices.add(at * strides[normal] + Math.floor(i / width) * strides[v] + (i % width) * strides[u]);
    }
  }
  return { indices, slices: above[0] - below[0] - 1 };
}

/** Distance of each pixel to the outline: negative inside. */
function signedDistance(plane: Uint8Array, width: number, height: number, size: readonly [number, number]): Float32Array {
  const outside = squaredDistance(plane, width, height, size, 1);
  const inside = squaredDistance(plane, width, height, size, 0);
  return outside.map((distance2, i) => (plane[i] ? 0.5 * size[0] - Math.sqrt(inside[i]!) : Math.sqrt(distance2) - 0.5 * size[0]));
}

/** Squared distance of each pixel to the nearest one with a value (Felzenszwalb and Huttenlocher 2012). */
function squaredDistance(plane: Uint8Array, width: number, height: number, size: readonly [number, number], value: 0 | 1): Float32Array {
  const result = Float32Array.from(plane, (pixel) => (pixel === value ? 0 : 1e9));
  for (let x = 0; x < width; x++) transformLine(result, x, width, height, size[1]);
  for (let y = 0; y < height; y++) transformLine(result, y * width, 1, width, size[0]);
  return result;
}

function transformLine(values: Float32Array, start: number, stride: number, count: number, mm: number): void {
  const f = Float32Array.from({ length: count }, (_, i) => values[start + i * stride]!);
  const lowest = new Int32Array(count);
  const bounds = new Float32Array(count + 1);
  let k = 0;
  bounds[0] = -Infinity;
  bounds[1] = Infinity;
  const meet = (q: number, p: number): number => (f[q]! - f[p]! + mm * mm * (q * q - p * p)) / (2 * mm * mm * (q - p));
  for (let q = 1; q < count; q++) {
    let s = meet(q, lowest[k]!);
    while (k > 0 && s <= bounds[k]!) s = meet(q, lowest[--k]!);
    lowest[++k] = q;
    [bounds[k], bounds[k + 1]] = [s, Infinity];
  }
  k = 0;
  for (let q = 0; q < count; q++) {
    while (bounds[k + 1]! < q) k++;
    const p = lowest[k]!;
    values[start + q * stride] = mm * mm * (q - p) * (q - p) + f[p]!;
  }
}
