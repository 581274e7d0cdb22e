import { expect, it } from "vitest";
import { type Findings, refusal } from "../src/api";
import { parcels, tooLarge } from "../src/grouping";
import { roundUp } from "../src/profile";
import { hours, limitsInWords, rounded, size, unknownBurden } from "../src/words";

const file = (path: string, bytes = 10) => ({ path, file: { size: bytes } as File });
const shapes = (...paths: string[]) =>
  parcels(paths.map((path) => file(path))).map(({ label, files }) => [label, files.length]);

it("makes a scan of each volume, each folder and all loose pictures", () => {
  expect(shapes("a.nii.gz", "b.nii", "c.zip")).toEqual([["a.nii.gz", 1], ["b.nii", 1], ["c.zip", 1]]);
  expect(shapes("ct/IM1", "ct/more/IM2", "other/IM1")).toEqual([["2 files", 2], ["IM1", 1]]);
  expect(shapes("1.png", "2.JPG", "IM1", "IM2")).toEqual([["2 files", 2], ["2 files", 2]]);
  expect(shapes("ct/a.nii.gz", "ct/.DS_Store", "__MACOSX/ct/a", ".hidden")).toEqual([["a.nii.gz", 1]]);
  expect(parcels([file("empty.nii", 0)])).toEqual([]);
});

it("refuses beforehand what the server would", () => {
  const limits = { upload_bytes: 1000, upload_files: 2 };
  expect(tooLarge({ files: [1], bytes: 1000 }, limits, size)).toBeNull();
  expect(tooLarge({ files: [1], bytes: 1001 }, limits, size)).toContain("1 kB");
  expect(tooLarge({ files: [1, 2, 3], bytes: 3 }, limits, size)).toContain("up to 2");
});

it("never says 0 for what is unknown", () => {
  expect(rounded(null)).toBe("unknown");
  expect(rounded(0)).toBe("0.0");
  const unknown = { lesion_volume_ml: "no spacing", "left_lung.lesion_volume_ml": "no spacing", zones: "flat" };
  expect(unknownBurden({ unknown } as unknown as Findings)).toEqual(["unknown: no spacing (lesion ml, left lesion ml)"]);
});

it("has round words", () => {
  expect([size(999), size(1500), size(2e9), size(250e6)]).toEqual(["999 B", "1.5 kB", "2 GB", "250 MB"]);
  expect([hours(1), hours(36), hours(72)]).toEqual(["1 hour", "36 hours", "3 days"]);
  const limits = { upload_bytes: 2e9, upload_files: 5000, slices: 2000, queue: 8, keep_hours: 24 };
  expect(limitsInWords(limits)).toContain("Up to 2 GB, 5,000 files and 2,000 slices");
  expect([0, 0.3, 12, 20, 21].map(roundUp)).toEqual([1, 0.5, 20, 20, 50]);
});

it("takes the server's own words, and its pause", () => {
  expect(refusal(413, '{"detail": "too much"}', null)).toMatchObject({ message: "too much", retryAfter: null });
  expect(refusal(429, '{"detail": "full"}', "7")).toMatchObject({ retryAfter: 7 });
  expect(refusal(502, "<html>", null).message).toContain("502");
});
