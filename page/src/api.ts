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

export interface ResultFile {
  name: string;
  bytes: number;
}

export interface Job {
  id: string;
  label: string;
  status: Status;
  position: number | null;
  progress: { done: number; total: number } | null;
  submitted: string;
  started: string | null;
  finished: string | null;
  expires: string | null;
  reason: string | null;
  corrects: string | null;
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
  centre_lps_mm: [number, number, number] | null;
  slice: number;
}

/** The part of `findings.json` that the page shows. */
export interface Findings extends Burden {
  input: { kind: "volume" | "pictures" };
  right_lung: Burden;
  left_lung: Burden;
  zones: Zone[] | null;
  profile: { unit: "ml" | "px"; lesion: number[]; lung: number[] };
  largest_lesions: Lesion[];
  slices: number;
  lesion_slices: number;
  intensity: { reason: string };
  model: { name: string; sha256: string };
  version: string;
  warnings: string[];
  unknown: Record<string, string>;
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

const SESSION = "api/session";
const jobPath = (id: string): string => `api/jobs/${encodeURIComponent(id)}`;

export const api = {
  limits: () => json<Limits>("api/limits"),
  /** How the reports draw a scan. */
  display: () => json<{ lung_window: { low_hu: number; high_hu: number } }>("api/display"),
  jobs: () => json<Job[]>("api/jobs"),
  job: (id: string) => json<Job>(jobPath(id)),
  findings: (id: string) => json<Findings>(`${jobPath(id)}/findings`),
  sliceNumbers: async (id: string) =>
    (await json<{ file_slice_of_view: number[] }>(`${jobPath(id)}/view/slices.json`)).file_slice_of_view,
  session: () => json<{ needs_token: boolean; signed_in: boolean }>(SESSION),
  signIn: (token: string) =>
    send(SESSION, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    }),
  signOut: () => send(SESSION, { method: "DELETE" }),
  remove: (id: string) => send(jobPath(id), { method: "DELETE" }),
  view: async (id: string, name: "scan" | "lesions") =>
    (await send(`${jobPath(id)}/view/${name}.nii.gz`)).arrayBuffer(),
  correct: async (id: string, mask: Blob) => {
    const headers = { "Content-Type": "application/octet-stream" };
    return (await (await send(`${jobPath(id)}/corrections`, { method: "POST", headers, body: mask })).json()) as Job;
  },
  eventsPath: (id: string) => `${jobPath(id)}/events`,
  filePath: (id: string, name: string) => `${jobPath(id)}/files/${name.split("/").map(encodeURIComponent).join("/")}`,
};
