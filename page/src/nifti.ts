/**
 * The NIfTI-1 files of a view. The server writes them in upright axial slices, so that their order is that of the
 * screen. A corrected mask is written with the header of the file that it came from: it lies on exactly the same grid.
 */

import type { Grid, Voxel } from "./grid";

const HEADER_BYTES = 348;
const UINT8 = 2;
const INT16 = 4;

export interface NiftiFile<Voxels> {
  /** All bytes before the voxels. */
  header: Uint8Array<ArrayBuffer>;
  grid: Grid;
  voxels: Voxels;
}

export type ScanFile = NiftiFile<Int16Array<ArrayBuffer>>;
export type MaskFile = NiftiFile<Uint8Array<ArrayBuffer>>;

export async function gunzip(packed: ArrayBuffer): Promise<ArrayBuffer> {
  const head = new Uint8Array(packed, 0, 2);
  if (head[0] !== 0x1f || head[1] !== 0x8b) return packed;
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

export async function gzip(bytes: Blob): Promise<Blob> {
  return new Response(bytes.stream().pipeThrough(new CompressionStream("gzip"))).blob();
}

export function readScan(file: ArrayBuffer): ScanFile {
  const { header, grid, offset, count } = readHeader(file, INT16, 2, "scan");
  return { header, grid, voxels: new Int16Array(file, offset, count) };
}

export function readMask(file: ArrayBuffer): MaskFile {
  const { header, grid, offset, count } = readHeader(file, UINT8, 1, "mask");
  return { header, grid, voxels: new Uint8Array(file, offset, count) };
}

/** The file with other voxels and nothing else changed. */
export function writeMask(like: MaskFile, voxels: Uint8Array<ArrayBuffer>): Blob {
  return new Blob([like.header, voxels]);
}

function readHeader(file: ArrayBuffer, type: number, bytes: number, name: string) {
  const view = new DataView(file);
  if (file.byteLength < HEADER_BYTES || view.getInt32(0, true) !== HEADER_BYTES) {
    throw new Error(`the ${name} is not a NIfTI-1 file`);
  }
  if (view.getInt16(70, true) !== type) throw new Error(`the ${name} is not of the expected type`);
  const dims = [1, 2, 3].map((axis) => view.getInt16(40 + 2 * axis, true)) as Voxel;
  const spacing_mm = [1, 2, 3].map((axis) => Math.abs(view.getFloat32(76 + 4 * axis, true)) || 1) as Voxel;
  const hasSteps = view.getInt16(254, true) > 0; // a sform, which the server writes
  const column = (axis: number) => [0, 1, 2].map((row) => view.getFloat32(280 + 16 * row + 4 * axis, true)) as Voxel;
  const steps_mm = hasSteps ? ([0, 1, 2].map(column) as [Voxel, Voxel, Voxel]) : undefined;
  const offset = view.getFloat32(108, true);
  const count = dims[0] * dims[1] * dims[2];
  if (file.byteLength < offset + bytes * count) throw new Error(`the ${name} is truncated`);
  return { header: new Uint8Array(file.slice(0, offset)), grid: { dims, spacing_mm, steps_mm }, offset, count };
}
