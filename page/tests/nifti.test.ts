import { expect, it } from "vitest";
import { gunzip, gzip, readMask, readScan, writeMask } from "../src/nifti";

function nifti(dims: number[], voxels: Uint8Array | Int16Array, datatype: number): ArrayBuffer {
  const file = new ArrayBuffer(352 + voxels.byteLength);
  const view = new DataView(file);
  view.setInt32(0, 348, true);
  dims.forEach((n, i) => view.setInt16(42 + 2 * i, n, true));
  view.setInt16(70, datatype, true);
  [0.7, 0.8, 5].forEach((mm, i) => view.setFloat32(80 + 4 * i, mm, true));
  view.setFloat32(108, 352, true);
  new Uint8Array(file, 352).set(new Uint8Array(voxels.buffer));
  return file;
}

it("reads a scan with its grid", () => {
  const scan = readScan(nifti([2, 1, 2], Int16Array.of(-1000, -5, 40, 3000), 4));
  expect([...scan.voxels]).toEqual([-1000, -5, 40, 3000]);
  expect(scan.grid.dims).toEqual([2, 1, 2]);
  expect(scan.grid.spacing_mm.map((mm) => Number(mm.toFixed(3)))).toEqual([0.7, 0.8, 5]);
});

it("reads the steps from voxel to voxel, which a tilted gantry shears", () => {
  const file = nifti([2, 1, 2], new Int16Array(4), 4);
  expect(readScan(file).grid.steps_mm).toBeUndefined();
  const view = new DataView(file);
  view.setInt16(254, 1, true);
  [-0.5, 0, 0, 9, 0, 0.75, 0, 9, 0, 0.25, 5, 9].forEach((n, i) => view.setFloat32(280 + 4 * i, n, true));
  expect(readScan(file).grid.steps_mm).toEqual([[-0.5, 0, 0], [0, 0.75, 0.25], [0, 0, 5]]);
});

it("writes a mask with other voxels and the same header", async () => {
  const file = nifti([2, 1, 2], Uint8Array.of(0, 1, 1, 0), 2);
  const packed = await gzip(writeMask(readMask(file), Uint8Array.of(1, 0, 0, 1)));
  const again = await gunzip(await packed.arrayBuffer());
  expect([...new Uint8Array(again, 0, 352)]).toEqual([...new Uint8Array(file, 0, 352)]);
  expect([...readMask(again).voxels]).toEqual([1, 0, 0, 1]);
});

it("refuses what is not a mask", () => {
  expect(() => readMask(new ArrayBuffer(20))).toThrow("not a NIfTI-1");
  expect(() => readMask(nifti([2, 1, 1], Int16Array.of(0, 0), 4))).toThrow("not of the expected type");
  expect(() => readMask(nifti([9, 9, 9], Uint8Array.of(0), 2))).toThrow("truncated");
});
