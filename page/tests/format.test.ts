import { expect, it } from "vitest";
import { type Findings, type Job, requestError } from "../src/api";
import { groupIntoScans, tooLarge } from "../src/grouping";
import { roundUp } from "../src/profile";
import { bound, describeLimits, describeSlice, hours, inOrder, jobState, listState, ml, positionText, range, rounded, sentence, size, toFixed, unknownBurden } from "../src/format";

const file = (path: string, bytes = 10) => ({ path, file: { size: bytes } as File });
const shapes = (...paths: string[]) =>
  groupIntoScans(paths.map((path) => file(path))).map(({ label, files }) => [label, files.length]);

it("makes one scan of each volume, of each folder, and of all loose images", () => {
  expect(shapes("a.nii.gz", "b.nii", "c.zip")).toEqual([["a.nii.gz", 1], ["b.nii", 1], ["c.zip", 1]]);
  expect(shapes("ct/IM1", "ct/more/IM2", "other/IM1")).toEqual([["ct", 2], ["IM1", 1]]);
  expect(shapes("1.png", "2.JPG", "IM1", "IM2")).toEqual([["2 images", 2], ["2 files", 2]]);
  expect(shapes("ct/a.nii.gz", "ct/.DS_Store", "__MACOSX/ct/a", ".hidden")).toEqual([["a.nii.gz", 1]]);
  expect(groupIntoScans([file("empty.nii", 0)])).toEqual([]);
});

it("makes one scan of a CD, without its programs and texts", () => {
  const disc = ["DICOMDIR", "AUTORUN.INF", "VIEWER/viewer.exe", "VIEWER/logo.png", "README.TXT", "DICOM/S1/IM1", "DICOM/S2/IM1"];
  const scans = (files: string[]) => groupIntoScans(files.map((path) => file(path)));
  expect(scans(disc).map(({ files }) => files.map(({ path }) => path))).toEqual([["DICOM/S1/IM1", "DICOM/S2/IM1"]]);
  expect(scans(disc)[0]!.label).toBe("disc");
  const inFolder = scans(disc.map((path) => `cd/${path}`));
  expect(inFolder.map(({ label, files }) => [label, files.length])).toEqual([["cd", 2]]);
  expect(shapes("ct/IM1", "ct/IM2", "ct/report.pdf")).toEqual([["ct", 2]]);
});

it("numbers slices as other viewers do, with their height", () => {
  const findings = {
    input: { image_numbers: [2, 1], slice_positions_mm: [-10.25, 3] },
    profile: { unit: "ml", lesion: [0, 1.5], lung: [0, 6] },
    slices: 2,
  } as unknown as Findings;
  expect(describeSlice(findings, 0)).toBe("image 2 of 2: no lesion");
  expect(describeSlice(findings, 1)).toBe("image 1 of 2: lesion 1.5 ml, 25 % of the lung");
  expect(positionText(findings, 0)).toBe("−10.2 mm");
  findings.profile.lesion = [0, 0.004];
  expect(describeSlice(findings, 1)).toBe("image 1 of 2: lesion <0.01 ml, less than 1 % of the lung");
  findings.input.image_numbers = [0, 1]; // counted from 0: "0 of 2" would be no image
  expect(describeSlice(findings, 0)).toBe("image 0: no lesion");
  findings.input.image_numbers = [131, 132];
  expect(describeSlice(findings, 0)).toBe("image 131: no lesion");
});

it("names the stage of a job, and the share done only where it is counted", () => {
  const running = (progress: Job["progress"]) => jobState({ status: "running", progress } as Job);
  expect(running(null)).toBe("starting");
  expect(running({ stage: "lungs", done: 0, total: 0 })).toBe("finding the lungs");
  expect(running({ stage: "lesions", done: 3, total: 9 })).toBe("finding the lesions: 33 %");
});

it("rounds a tie to the even digit, as the report does", () => {
  expect([2.25, 2.75, -0.25, 2.35, 0.125].map((value) => rounded(value))).toEqual(["2.2", "2.8", "-0.2", "2.4", "0.1"]);
  expect([0.5, 1.5, 2.5, 262.5, 1e15].map((value) => toFixed(value, 0))).toEqual(["0", "2", "2", "262", "1000000000000000"]);
  expect(range([2.25, 7.4])).toBe("2.2 to 7.4");
});

it("states volumes as the report does, and nothing above 0 as 0", () => {
  expect([0, 0.004, 0.13, 1, 9.94, 12.6, 931.6, null].map(ml)).toEqual(["0.0", "<0.01", "0.13", "1.0", "9.9", "13", "932", "unknown"]);
  expect([0, 0.04, 0.06].map((value) => rounded(value))).toEqual(["0.0", "<0.1", "0.1"]);
});

it("leaves options of the command line out of sentences", () => {
  expect(sentence("series 2 was chosen (--series NUMBER takes another)")).toBe("Series 2 was chosen.");
});

it("refuses scans that the server would refuse as too large", () => {
  const limits = { upload_bytes: 1000, upload_files: 2 };
  expect(tooLarge({ files: [1], bytes: 1000 }, limits, size)).toBeNull();
  expect(tooLarge({ files: [1], bytes: 1001 }, limits, size)).toContain("1 kB");
  expect(tooLarge({ files: [1, 2, 3], bytes: 3 }, limits, size)).toContain("up to 2");
});

it("never shows an unknown value as 0", () => {
  expect(rounded(null)).toBe("unknown");
  expect(rounded(0)).toBe("0.0");
  const unknown = { lesion_volume_ml: "no spacing", "left_lung.lesion_volume_ml": "no spacing", zones: "flat" };
  expect(unknownBurden({ unknown } as unknown as Findings)).toEqual(["unknown: no spacing (lesion ml, left lesion ml)"]);
});

it("formats sizes, times, limits and axis ends", () => {
  expect([size(999), size(1500), size(2e9), size(250e6)]).toEqual(["999 B", "1.5 kB", "2 GB", "250 MB"]);
  expect([hours(1), hours(36), hours(72)]).toEqual(["1 hour", "36 hours", "3 days"]);
  const limits = { upload_bytes: 2e9, upload_files: 5000, slices: 2000, queue: 8, keep_hours: 24 };
  expect(describeLimits(limits)).toContain("Up to 2 GB, 5,000 files and 2,000 slices per scan");
  const tops: [number, number][] = [[0, 1], [0.3, 0.32], [11, 12], [12, 12], [20, 20], [21, 24], [9, 10]];
  for (const [value, top] of tops) expect(roundUp(value)).toBeCloseTo(top, 9);
});

it("lists the report first and the masks of single images last", () => {
  const files = ["findings.json", "lesions/b.png", "lesions/a.png", "lesions.nii.gz", "report.html"].map((name) => ({ name }));
  expect(inOrder(files).map(({ name }) => name)).toEqual(["report.html", "lesions.nii.gz", "findings.json", "lesions/b.png", "lesions/a.png"]);
});

it("gives the reason and the pause that the server names", () => {
  expect(requestError(413, '{"detail": "too much"}', null)).toMatchObject({ message: "too much", retryAfter_s: null });
  expect(requestError(429, '{"detail": "full"}', "7")).toMatchObject({ retryAfter_s: 7 });
  expect(requestError(502, "<html>", null).message).toContain("502");
});

it("says of a job in the list its burden alone, with numbers and units on one line", () => {
  const done = (summary: string) => listState({ status: "done", summary } as Job);
  expect(done("lesion 3.2 ml, 0.1 % of the lung, in 3 of 42 slices")).toBe("3.2\u00a0ml, 0.1\u00a0% of the lung");
  expect(done("lesion covers 6.3 % of the lung's area, in 1 of 1 slice")).toBe("6.3\u00a0% of the lung's area");
  expect(done("no lesion found in 40 slices")).toBe("no lesion found in 40 slices");
  expect(bound("−1.0 points (5 to 6 %)")).toBe("−1.0\u00a0points (5 to 6\u00a0%)");
});
