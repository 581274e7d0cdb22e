/** Numbers, times and states as text. */

import type { Findings, Job, Lesion, Limits, Progress, Stage } from "./api";

const EXACT = 30; // further decimal places, of which one that is not 0 tells that a number is no tie

/** A number rounded as in the report, or `unknown`; neither an unknown value nor one above 0 is ever shown as 0. */
export function rounded(value: number | null, digits = 1): string {
  if (value === null) return "unknown";
  const text = toFixed(value, digits);
  return value > 0 && Number(text) === 0 ? `<${toFixed(10 ** -digits, digits)}` : text;
}

/** A volume with as many decimal places as are worth stating, as in the report. */
export const ml = (volume_ml: number | null): string => rounded(volume_ml, mlDigits(volume_ml));

/** A number with this many decimal places; a tie goes to the even digit, as where the report is written. */
export function toFixed(value: number, digits: number): string {
  const [start, rest] = [value.toFixed(digits + EXACT).slice(0, -EXACT), value.toFixed(digits + EXACT).slice(-EXACT)];
  const truncated = start.replace(/\.$/, "");
  return /^50+$/.test(rest) && /[02468]$/.test(truncated) ? truncated : value.toFixed(digits);
}

/** An interval in words, without its unit. */
export const range = (limits: readonly [number, number], digits = 1): string =>
  limits.map((limit) => toFixed(limit, digits)).join(" to ");

/** How many decimal places of a volume are worth stating, as in the report. */
export function mlDigits(volume_ml: number | null): number {
  const size = Math.abs(volume_ml ?? 0);
  return size >= 10 ? 0 : size >= 1 || size === 0 ? 1 : 2;
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** A line from the server as a sentence: with a capital and a full stop, and without options of the command line. */
export function sentence(text: string): string {
  const capitalised = capital(trueMinus(text.replace(/\s*\([^()]*--[a-z][^()]*\)/g, "")));
  return /[.!?]$/.test(capitalised) ? capitalised : `${capitalised}.`;
}

/** A text in which negative numbers have a minus sign, where programs write a hyphen. */
export const trueMinus = (text: string): string => text.replace(/(?<![\w.,−-])-(?=\d)/g, "−");

/** The message of an error as a sentence. */
export function errorText(error: unknown): string {
  return sentence(error instanceof Error ? error.message : String(error));
}

export function size(bytes: number): string {
  if (bytes < 1000) return `${bytes} B`;
  let value = bytes;
  let unit = "B";
  for (const next of ["kB", "MB", "GB"]) {
    if (value < 1000) break;
    value /= 1000;
    unit = next;
  }
  return `${value >= 100 || Number.isInteger(value) ? value.toFixed(0) : value.toFixed(1)} ${unit}`;
}

/** A count with its noun: `1 file`, `5,000 files`. */
export function counted(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function hours(count: number): string {
  return count >= 48 && count % 24 === 0 ? counted(count / 24, "day") : counted(count, "hour");
}

export function describeLimits(limits: Limits): string {
  return (
    `Up to ${size(limits.upload_bytes)}, ${counted(limits.upload_files, "file")} and ` +
    `${counted(limits.slices, "slice")} per scan. Results are kept for ${hours(limits.keep_hours)}.`
  );
}

export const STAGES: Record<Stage, string> = {
  reading: "reading the scan",
  lungs: "finding the lungs",
  lesions: "finding the lesions",
  measuring: "measuring",
  writing: "writing the results",
};

/** The stage of a job that runs, with the share done where it is counted. */
function stageText(progress: Progress | null): string {
  if (progress === null) return "starting";
  // Not in slices: the lungs are sought in slices of another distance, the lesions in those with lung alone.
  const share = progress.total ? `: ${Math.floor((100 * progress.done) / progress.total)} %` : "";
  return `${STAGES[progress.stage]}${share}`;
}

/** The state of a job in a few words. */
export function jobState(job: Job): string {
  switch (job.status) {
    case "queued":
      return job.position === null ? "in the queue" : `in the queue, position ${job.position}`;
    case "running":
      return stageText(job.progress);
    case "failed":
      return "failed";
    case "done":
      return job.summary ?? "done";
  }
}

/** The state of a job in the list, where there is little room: the burden alone. */
export function listState(job: Job): string {
  return bound(
    jobState(job)
      .replace(/^lesion (covers )?(?=\d)/, "")
      .replace(/, in \d+ of \d+ slices?$/, ""),
  );
}

/** A text whose numbers are not parted from their units at the end of a line. */
export function bound(text: string): string {
  return text.replace(/(?<=\d) (?=%|ml|points)/g, "\u00a0");
}

/** A whole number with a minus sign where it is negative. */
export const signed = (value: number): string => trueMinus(String(value));

/** The size of a lesion, without its unit. */
export function lesionSize(lesion: Lesion): string {
  if (lesion.volume_ml !== null) return ml(lesion.volume_ml);
  return lesion.area_px === null ? "unknown" : lesion.area_px.toLocaleString("en");
}

/** The reasons why values of the burden are unknown, each with the values that it concerns. */
export function unknownBurden(findings: Findings): string[] {
  const values = new Map<string, string[]>();
  for (const [path, reason] of Object.entries(findings.unknown)) {
    const name = path.split(".").at(-1) ?? path;
    if (!(name in BURDEN_LABELS)) continue;
    const side = path.startsWith("right_lung") ? "right " : path.startsWith("left_lung") ? "left " : "";
    values.set(reason, [...(values.get(reason) ?? []), side + BURDEN_LABELS[name]]);
  }
  return [...values].map(([reason, names]) => `unknown: ${reason} (${names.join(", ")})`);
}

const BURDEN_LABELS: Record<string, string> = {
  lesion_volume_ml: "lesion ml",
  lung_volume_ml: "lung ml",
  lesion_share_of_lung_percent: "% of lung",
};

/** The number by which other viewers show a slice of the file: the InstanceNumber of DICOM, else counted from 1. */
export function imageNumber(findings: Findings, slice: number): number {
  return findings.input.image_numbers[slice] ?? slice + 1;
}

/** The name of a slice; without the number of all where a series is numbered from elsewhere than 1. */
export function imageName(findings: Findings, slice: number): string {
  const numbers = findings.input.image_numbers;
  const isFromOne = Math.min(...numbers) === 1 && Math.max(...numbers) === findings.slices;
  return `image ${imageNumber(findings, slice)}${isFromOne ? ` of ${findings.slices}` : ""}`;
}

/** The height of a slice in the patient; empty if it is not known. */
export function positionText(findings: Findings, slice: number): string {
  const position = findings.input.slice_positions_mm?.[slice];
  return position === undefined ? "" : `${trueMinus(toFixed(position, 1))} mm`;
}

/** The lesion in a slice, as the report gives it. */
export function describeSlice(findings: Findings, slice: number): string {
  const lesion = findings.profile.lesion[slice] ?? 0;
  const lung = findings.profile.lung[slice] ?? 0;
  const name = imageName(findings, slice);
  if (lesion === 0) return `${name}: no lesion`;
  const amount = findings.profile.unit === "ml" ? `${ml(lesion)} ml` : `${lesion.toLocaleString("en")} px`;
  const percent = Math.min(100, (100 * lesion) / lung);
  const share = lung > 0 ? `${percent >= 1 ? toFixed(percent, 0) : "less than 1"} % of the lung` : "no lung";
  return `${name}: lesion ${amount}, ${share}`;
}

/** The time of day, with the date unless it is today. */
export function clock(time: string): string {
  const date = new Date(time);
  const isToday = date.toDateString() === new Date().toDateString();
  const hour = date.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return isToday ? hour : `${date.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${hour}`;
}

/** The content and the format of the result files, those that most readers want first. */
const FILE_LABELS: Record<string, string> = {
  "report.html": "Report",
  "preview.png": "Preview image",
  "lesions.dcm": "Mask, DICOM SEG",
  "findings.dcm": "Findings, DICOM SR",
  "lesions.nii.gz": "Mask, NIfTI",
  "lesions.png": "Mask, PNG",
  "classes.nii.gz": "Classes, NIfTI",
  "lungs.nii.gz": "Lungs, NIfTI",
  "probability.nii.gz": "Probability, NIfTI",
  "findings.json": "Findings, JSON",
};

/** The content and the format of a result file. */
export function fileLabel(name: string): string {
  return FILE_LABELS[name] ?? (name.endsWith(".png") ? `Mask of ${name.split("/").at(-1)}` : name);
}

/** Result files in the order in which they are listed: masks of single images last, as the server lists them. */
export function inOrder<File extends { name: string }>(files: readonly File[]): File[] {
  const names = Object.keys(FILE_LABELS);
  const place = ({ name }: File): number => (names.includes(name) ? names.indexOf(name) : names.length);
  return [...files].sort((one, other) => place(one) - place(other));
}

/** A date, with its time unless that is midnight, which stands for a time that is not stated. */
export function date(time: string): string {
  const [day, hour] = time.split("T") as [string, string?];
  return hour && !hour.startsWith("00:00") ? `${day}, ${hour.slice(0, 5)}` : day;
}
