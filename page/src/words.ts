/** Numbers and states in plain words. */

import type { Findings, Job, Lesion, Limits } from "./api";

/** A number as the report rounds it, or `unknown`; never 0 for what is not known. */
export function rounded(value: number | null, digits = 1): string {
  return value === null ? "unknown" : value.toFixed(digits);
}

export function capital(text: string): string {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** What the server says in a line, as a sentence. */
export function sentence(text: string): string {
  const begun = capital(text);
  return /[.!?]$/.test(begun) ? begun : `${begun}.`;
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

export function several(count: number, noun: string): string {
  return `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;
}

export function hours(count: number): string {
  return count >= 48 && count % 24 === 0 ? several(count / 24, "day") : several(count, "hour");
}

export function limitsInWords(limits: Limits): string {
  return (
    `Up to ${size(limits.upload_bytes)}, ${several(limits.upload_files, "file")} and ` +
    `${several(limits.slices, "slice")} a scan. Results are kept for ${hours(limits.keep_hours)}.`
  );
}

/** What a job is doing, in a few words. */
export function state(job: Job): string {
  switch (job.status) {
    case "queued":
      return job.position === null ? "in the queue" : `in the queue, place ${job.position}`;
    case "running":
      return job.progress === null
        ? "reading the scan"
        : `slice ${job.progress.done} of ${job.progress.total}`;
    case "failed":
      return "refused";
    case "done":
      return job.summary ?? "done";
  }
}

export function lesionSize(lesion: Lesion): string {
  if (lesion.volume_ml !== null) return `${lesion.volume_ml.toFixed(1)} ml`;
  return lesion.area_px === null ? "unknown size" : `${lesion.area_px.toLocaleString("en")} px`;
}

/** Reasons for what is unknown of the burden, each with what it concerns. */
export function unknownBurden(findings: Findings): string[] {
  const reasons = new Map<string, string[]>();
  for (const [path, reason] of Object.entries(findings.unknown)) {
    const name = path.split(".").at(-1) ?? path;
    if (!(name in BURDEN_WORDS)) continue;
    const side = path.startsWith("right_lung") ? "right " : path.startsWith("left_lung") ? "left " : "";
    const words = side + BURDEN_WORDS[name];
    reasons.set(reason, [...(reasons.get(reason) ?? []), words]);
  }
  return [...reasons].map(([reason, names]) => `unknown: ${reason} (${names.join(", ")})`);
}

const BURDEN_WORDS: Record<string, string> = {
  lesion_volume_ml: "lesion ml",
  lung_volume_ml: "lung ml",
  lesion_share_of_lung_percent: "% of lung",
};

/** What a slice shows, as the report says it. */
export function sliceInWords(findings: Findings, slice: number): string {
  const lesion = findings.profile.lesion[slice] ?? 0;
  const lung = findings.profile.lung[slice] ?? 0;
  const of = `slice ${slice}`;
  if (lesion === 0) return `${of}: no lesion`;
  const amount = findings.profile.unit === "ml" ? `${lesion.toFixed(2)} ml` : `${lesion.toLocaleString("en")} px`;
  return lung > 0 ? `${of}: lesion ${amount}, ${Math.min(100, (100 * lesion) / lung).toFixed(0)} % of the lung` : `${of}: lesion ${amount}, no lung`;
}

export function clock(time: string): string {
  const then = new Date(time);
  const today = then.toDateString() === new Date().toDateString();
  const hour = then.toLocaleTimeString("en-GB", { hour: "2-digit", minute: "2-digit" });
  return today ? hour : `${then.toLocaleDateString("en-GB", { day: "numeric", month: "short" })}, ${hour}`;
}

/** What a result file is, and what it is good for. */
export function fileInWords(name: string): string {
  const known: Record<string, string> = {
    "lesions.nii.gz": "Mask, NIfTI",
    "lesions.png": "Mask, PNG",
    "lesions.dcm": "Mask, DICOM SEG",
    "findings.dcm": "Findings, DICOM SR",
    "findings.json": "Findings, JSON",
    "preview.png": "Picture of the slices",
    "report.html": "Report",
  };
  return known[name] ?? (name.endsWith(".png") ? `Mask of ${name.split("/").at(-1)}` : name);
}
