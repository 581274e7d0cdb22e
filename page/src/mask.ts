/**
 * Conversion of the lesion mask between its NIfTI file and NiiVue's drawing layer.
 *
 * NiiVue keeps a drawing in RAS order: x from left to right, y from posterior to anterior, z from feet to head. The file
 * may have another order. A corrected mask is written with the header and the order of the file it came from, so that
 * it lies on exactly the same grid.
 */

const HEADER_BYTES = 348;
const UINT8 = 2;

export interface MaskFile {
  /** All bytes before the voxels. */
  header: Uint8Array<ArrayBuffer>;
  /** Voxels along the axes of the file, the fastest first. */
  dims: [number, number, number];
  voxels: Uint8Array<ArrayBuffer>;
}

/** Index in the file of the voxel (x, y, z) of the drawing: sum of start + x step[0] + y step[1] + z step[2]. */
export interface Order {
  dims: [number, number, number];
  start: [number, number, number];
  step: [number, number, number];
}

export async function gunzip(packed: ArrayBuffer): Promise<ArrayBuffer> {
  const head = new Uint8Array(packed, 0, 2);
  if (head[0] !== 0x1f || head[1] !== 0x8b) return packed;
  return new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

export async function gzip(bytes: Blob): Promise<Blob> {
  return new Response(bytes.stream().pipeThrough(new CompressionStream("gzip"))).blob();
}

/** Read a mask as the server writes it: a little-endian NIfTI-1 file of uint8. */
export function readMask(file: ArrayBuffer): MaskFile {
  const view = new DataView(file);
  if (file.byteLength < HEADER_BYTES || view.getInt32(0, true) !== HEADER_BYTES) {
    throw new Error("the mask is not a NIfTI-1 file");
  }
  if (view.getInt16(70, true) !== UINT8) throw new Error("the mask is not of type uint8");
  const dims: [number, number, number] = [view.getInt16(42, true), view.getInt16(44, true), view.getInt16(46, true)];
  const offset = view.getFloat32(108, true);
  const count = dims[0] * dims[1] * dims[2];
  if (file.byteLength < offset + count) throw new Error("the mask is truncated");
  return { header: new Uint8Array(file.slice(0, offset)), dims, voxels: new Uint8Array(file, offset, count) };
}

/** The file with other voxels and nothing else changed. */
export function writeMask(like: MaskFile, voxels: Uint8Array<ArrayBuffer>): Blob {
  return new Blob([like.header, voxels]);
}

function reorder(order: Order, move: (drawing: number, file: number) => void): void {
  const [nx, ny, nz] = order.dims;
  const [dx, dy, dz] = order.step;
  const origin = order.start[0] + order.start[1] + order.start[2];
  let drawing = 0;
  for (let z = 0; z < nz; z++) {
    for (let y = 0; y < ny; y++) {
      let file = origin + z * dz + y * dy;
      for (let x = 0; x < nx; x++, file += dx) move(drawing++, file);
    }
  }
}

export function toDrawing(voxels: Uint8Array, order: Order): Uint8Array<ArrayBuffer> {
  const drawing = new Uint8Array(voxels.length);
  reorder(order, (to, from) => {
    drawing[to] = voxels[from] as number;
  });
  return drawing;
}

export function fromDrawing(drawing: Uint8Array, order: Order): Uint8Array<ArrayBuffer> {
  const voxels = new Uint8Array(drawing.length);
  reorder(order, (from, to) => {
    voxels[to] = drawing[from] as number;
  });
  return voxels;
}
