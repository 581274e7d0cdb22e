import { describe, expect, it } from "vitest";
import { fromDrawing, gunzip, gzip, type Order, readMask, toDrawing, writeMask } from "../src/mask";

/** A drawing of 2 x 3 x 4 whose file runs from head to feet, then right to left, then front to back. */
const turned: Order = { dims: [2, 3, 4], start: [0, 0, 3], step: [4 * 3, 4, -1] };
const mirrored: Order = { dims: [2, 3, 4], start: [1, 4, 0], step: [-1, -2, 6] };

describe("the order of the file", () => {
  it("puts each voxel in its place and back", () => {
    const voxels = Uint8Array.from({ length: 24 }, (_, i) => i + 1);
    const drawing = toDrawing(voxels, turned);
    expect(drawing[0]).toBe(voxels[3]); // x = y = z = 0 is the last along the file's first axis
    expect(drawing[1]).toBe(voxels[3 + 12]);
    expect(drawing[2 * 3]).toBe(voxels[2]);
    expect([...fromDrawing(drawing, turned)]).toEqual([...voxels]);
  });

  it("handles mirrored axes", () => {
    const voxels = Uint8Array.from({ length: 24 }, (_, i) => i);
    expect(toDrawing(voxels, mirrored)[0]).toBe(5);
    expect([...fromDrawing(toDrawing(voxels, mirrored), mirrored)]).toEqual([...voxels]);
  });
});

function nifti(dims: number[], voxels: number[], datatype = 2): ArrayBuffer {
  const file = new ArrayBuffer(352 + voxels.length);
  const view = new DataView(file);
  view.setInt32(0, 348, true);
  dims.forEach((n, i) => view.setInt16(42 + 2 * i, n, true));
  view.setInt16(70, datatype, true);
  view.setFloat32(108, 352, true);
  view.setFloat32(280, 0.7, true); // of the affine
  new Uint8Array(file, 352).set(voxels);
  return file;
}

describe("the mask file", () => {
  it("is written with other voxels and the same header", async () => {
    const file = nifti([2, 1, 2], [0, 1, 1, 0]);
    const mask = readMask(file);
    expect(mask.dims).toEqual([2, 1, 2]);
    expect([...mask.voxels]).toEqual([0, 1, 1, 0]);
    const packed = await gzip(writeMask(mask, Uint8Array.of(1, 0, 0, 1)));
    const again = await gunzip(await packed.arrayBuffer());
    expect(again.byteLength).toBe(file.byteLength);
    expect([...new Uint8Array(again, 0, 352)]).toEqual([...new Uint8Array(file, 0, 352)]);
    expect([...readMask(again).voxels]).toEqual([1, 0, 0, 1]);
  });

  it("is refused if it is not a mask", () => {
    expect(() => readMask(new ArrayBuffer(20))).toThrow("not a NIfTI-1");
    expect(() => readMask(nifti([2, 1, 2], [0, 0, 0, 0], 4))).toThrow("not of type uint8");
    expect(() => readMask(nifti([9, 9, 9], [0]))).toThrow("truncated");
  });
});
