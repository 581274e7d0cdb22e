/** What the server says, and how it is asked: see docs/service.md. */

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

/** `findings.json`, as far as the page shows it. */
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

/** What the server refused, in its own plain words. */
export class Refusal extends Error {
  constructor(
    readonly status: number,
    detail: string,
    /** Seconds after which another try makes sense. */
    readonly retryAfter: number | null = null,
  ) {
    super(detail);
  }
}

export const NO_ANSWER = "The server does not answer. It may be starting again; your scans are kept.";

/** The refusal that a status and a body make. */
export function refusal(status: number, body: string, retryAfter: string | null): Refusal {
  let detail = `The server answered with ${status}.`;
  try {
    const told: unknown = (JSON.parse(body) as { detail?: unknown }).detail;
    if (typeof told === "string") detail = told;
  } catch {
    // no JSON: a proxy answered, and the status is all there is to say
  }
  const seconds = Number(retryAfter);
  return new Refusal(status, detail, retryAfter && Number.isFinite(seconds) ? Math.max(1, seconds) : null);
}

/** Called when the server wants a token. */
export const signIn: { needed: () => void } = { needed: () => {} };

async function ask(path: string, init?: RequestInit): Promise<Response> {
  let answer: Response;
  try {
    answer = await fetch(path, { cache: "no-store", ...init });
  } catch {
    throw new Refusal(0, NO_ANSWER);
  }
  if (!answer.ok) {
    if (answer.status === 401 && path !== SESSION) signIn.needed();
    throw refusal(answer.status, await answer.text(), answer.headers.get("Retry-After"));
  }
  return answer;
}

async function json<T>(path: string): Promise<T> {
  return (await (await ask(path)).json()) as T;
}

const SESSION = "api/session";
const jobPath = (id: string): string => `api/jobs/${encodeURIComponent(id)}`;

export const api = {
  limits: () => json<Limits>("api/limits"),
  jobs: () => json<Job[]>("api/jobs"),
  job: (id: string) => json<Job>(jobPath(id)),
  findings: (id: string) => json<Findings>(`${jobPath(id)}/findings`),
  sliceNumbers: async (id: string) =>
    (await json<{ file_slice_of_view: number[] }>(`${jobPath(id)}/view/slices.json`)).file_slice_of_view,
  session: () => json<{ needs_token: boolean; signed_in: boolean }>(SESSION),
  signIn: (token: string) =>
    ask(SESSION, {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ token }),
    }),
  signOut: () => ask(SESSION, { method: "DELETE" }),
  remove: (id: string) => ask(jobPath(id), { method: "DELETE" }),
  view: async (id: string, name: "scan" | "lesions") =>
    (await ask(`${jobPath(id)}/view/${name}.nii.gz`)).arrayBuffer(),
  correct: async (id: string, mask: Blob) => {
    const headers = { "Content-Type": "application/octet-stream" };
    return (await (await ask(`${jobPath(id)}/corrections`, { method: "POST", headers, body: mask })).json()) as Job;
  },
  eventsPath: (id: string) => `${jobPath(id)}/events`,
  filePath: (id: string, name: string) => `${jobPath(id)}/files/${name.split("/").map(encodeURIComponent).join("/")}`,
};
