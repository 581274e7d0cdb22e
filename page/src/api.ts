/** Client of the server's API, which docs/service.md describes. */

/** What the server accepts. */
export interface Limits {
  upload_bytes: number;
  upload_files: number;
  slices: number;
  queue: number;
  keep_hours: number;
}

export type Status = "queued" | "running" | "done" | "failed";

export type Stage = "reading" | "lungs" | "lesions" | "measuring" | "writing";

/** The stage of a job that runs; where its slices are counted, those done and all of them, else 0. */
export interface Progress {
  stage: Stage;
  done: number;
  total: number;
}

export interface ResultFile {
  name: string;
  bytes: number;
}

export interface Job {
  id: string;
  label: string;
  status: Status;
  position: number | null;
  progress: Progress | null;
  submitted: string;
  started: string | null;
  finished: string | null;
  expires: string | null;
  reason: string | null;
  corrects: string | null;
  note: string;
  summary: string | null;
  files?: ResultFile[];
}

export interface Burden {
  lesion_volume_ml: number | null;
  lung_volume_ml: number | null;
  lesion_share_of_lung_percent: number | null;
}

export interface Zone {
  side: "right" | "left";
  third: "upper" | "middle" | "lower";
  lesion_share_of_lung_percent: number;
  lesion_volume_ml: number;
}

export interface Lesion {
  volume_ml: number | null;
  area_px: number | null;
  side: "right" | "left" | null;
  zone: "upper" | "middle" | "lower" | null;
  mean_hu: number | null;
  slice: number;
}

/** The part of `findings.json` that the page shows. */
export interface Findings extends Burden {
  input: {
    kind: "volume" | "pictures";
    spacing_mm: [number, number, number] | null;
    scanned: string | null;
    series: string | null;
    slice_thickness_mm: number | null;
    kernel: string | null;
    image_numbers: number[];
    slice_positions_mm: number[] | null;
  };
  lesion_volume_interval_ml: [number, number] | null;
  lesion_share_interval_percent: [number, number] | null;
  extent: { name: string; range: string } | null;
  classes: { name: string; volume_ml: number | null; lesion_share_of_lung_percent: number | null }[];
  right_lung: Burden;
  left_lung: Burden;
  zones: Zone[] | null;
  profile: { unit: "ml" | "px"; lesion: number[]; lung: number[] };
  largest_lesions: Lesion[];
  lesion_count: number;
  slices: number;
  lesion_slices: number;
  intensity: { reason: string };
  model: { name: string; sha256: string };
  version: string;
  warnings: string[];
  unknown: Record<string, string>;
}

/** `slices.json` of a view. */
export interface ViewDescription {
  file_slice_of_view: number[];
  /** For each lesion of the findings a voxel (z, y, x) of the view inside it. */
  lesion_points: [number, number, number][];
  in_mm: boolean;
  has_directions: boolean;
  classes: string[];
  description: string | null;
  /** What was found, to be copied into a report, and how far it can be trusted. */
  sentence: string;
  uncertainty: string;
}

/** A DICOM series of an upload that holds several. */
export interface Series {
  label: string;
  description: string;
  kernel: string;
  modality: string;
  slices: number;
  slice_distance_mm: number | null;
  axial: boolean;
  chosen: boolean;
  rejection_reason: string | null;
}

/** The change from one scan to another, with intervals of 95 % of repeats. */
export interface Change {
  earlier: string;
  later: string;
  by_date: boolean;
  earlier_scanned: string | null;
  later_scanned: string | null;
  volume_ml: number | null;
  volume_interval_ml: [number, number] | null;
  volume_percent: number | null;
  volume_percent_interval: [number, number] | null;
  share_points: number | null;
  share_interval_points: [number, number] | null;
  in_words: string;
  warnings: string[];
}

/** A request that failed; the message is the server's reason. */
export class RequestError extends Error {
  constructor(
    /** HTTP status; 0 where the server does not answer. */
    readonly status: number,
    message: string,
    readonly retryAfter_s: number | null = null,
  ) {
    super(message);
  }
}

/** Whether the findings are of a volume; single slices have no ml. */
export const isVolume = ({ input }: Findings): boolean => input.kind === "volume";

export const NO_ANSWER = "The server does not answer. It may be restarting; your scans are kept.";

/** The error of a response with this status, body and Retry-After header. */
export function requestError(status: number, body: string, retryAfter: string | null): RequestError {
  let message = `The server answered with ${status}.`;
  try {
    const { detail } = JSON.parse(body) as { detail?: unknown };
    if (typeof detail === "string") message = detail;
  } catch {
    // not JSON: a proxy answered, and only the status is known
  }
  const seconds = Number(retryAfter);
  return new RequestError(status, message, retryAfter && Number.isFinite(seconds) ? Math.max(1, seconds) : null);
}

/** `required` is called when the server refuses a request for want of the token. */
export const signIn: { required: () => void } = { required: () => {} };

async function send(path: string, init?: RequestInit): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, { cache: "no-store", ...init });
  } catch {
    throw new RequestError(0, NO_ANSWER);
  }
  if (!response.ok) {
    if (response.status === 401 && path !== SESSION) signIn.required();
    throw requestError(response.status, await response.text(), response.headers.get("Retry-After"));
  }
  return response;
}

async function json<T>(path: string): Promise<T> {
  return (await (await send(path)).json()) as T;
}

async function sendJson<T>(method: string, path: string, body: unknown): Promise<T> {
  const headers = { "Content-Type": "application/json" };
  const text = await (await send(path, { method, headers, body: JSON.stringify(body) })).text();
  return (text ? JSON.parse(text) : null) as T;
}

/** Read a body piece by piece into one buffer. */
async function readBody(response: Response, progress: (share: number) => void): Promise<ArrayBuffer> {
  const length = Number(response.headers.get("Content-Length"));
  const isPacked = response.headers.has("Content-Encoding"); // by a proxy: the length is then not that of the content
  if (!length || isPacked || !response.body) return response.arrayBuffer();
  const bytes = new Uint8Array(length);
  let arrived = 0;
  for (const reader = response.body.getReader(); ; ) {
    const { done, value } = await reader.read();
    if (done) break;
    bytes.set(value, arrived);
    arrived += value.length;
    progress(arrived / length);
  }
  if (arrived !== length) throw new RequestError(0, NO_ANSWER);
  return bytes.buffer;
}

const SESSION = "api/session";
const jobPath = (id: string): string => `api/jobs/${encodeURIComponent(id)}`;

export const api = {
  limits: () => json<Limits>("api/limits"),
  /** How the reports draw a scan. */
  display: () => json<{ lung_window: { low_hu: number; high_hu: number } }>("api/display"),
  jobs: () => json<Job[]>("api/jobs"),
  job: (id: string) => json<Job>(jobPath(id)),
  findings: (id: string) => json<Findings>(`${jobPath(id)}/findings`),
  viewDescription: (id: string) => json<ViewDescription>(`${jobPath(id)}/view/slices.json`),
  series: (id: string) => json<Series[]>(`${jobPath(id)}/series`),
  takeSeries: (id: string, series: string) => sendJson<Job>("POST", `${jobPath(id)}/series`, { series }),
  describe: (id: string, changes: { label?: string; note?: string }) => sendJson<Job>("PATCH", jobPath(id), changes),
  change: (id: string, other: string) => json<Change>(`${jobPath(id)}/change?other=${encodeURIComponent(other)}`),
  session: () => json<{ needs_token: boolean; signed_in: boolean }>(SESSION),
  signIn: (token: string) => sendJson<unknown>("POST", SESSION, { token }),
  signOut: () => send(SESSION, { method: "DELETE" }),
  remove: (id: string) => send(jobPath(id), { method: "DELETE" }),
  /** A file of a view; `progress` is called with the share that has arrived. */
  view: async (id: string, name: "scan.nii" | "lesions.nii.gz" | "lungs.nii.gz", progress: (share: number) => void = () => {}) =>
    readBody(await send(`${jobPath(id)}/view/${name}`), progress),
  /** Send a mask: one that was drawn on that of the job, or one that was made elsewhere. */
  correct: async (id: string, mask: Blob, from: "drawn" | "opened") => {
    const headers = { "Content-Type": "application/octet-stream" };
    return (await (await send(`${jobPath(id)}/corrections${from === "opened" ? "?opened=true" : ""}`, { method: "POST", headers, body: mask })).json()) as Job;
  },
  eventsPath: (id: string) => `${jobPath(id)}/events`,
  filePath: (id: string, name: string) => `${jobPath(id)}/files/${name.split("/").map(encodeURIComponent).join("/")}`,
};
