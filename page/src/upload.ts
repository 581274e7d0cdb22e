/** One parcel on its way to the server: XMLHttpRequest, since fetch tells no progress of what it sends. */

import { type Job, NO_ANSWER, Refusal, refusal, signIn } from "./api";
import type { Parcel } from "./grouping";

export interface Upload {
  job: Promise<Job>;
  cancel: () => void;
}

export class Cancelled extends Error {}

export function upload(parcel: Parcel, progress: (share: number) => void): Upload {
  const form = new FormData();
  for (const { path, file } of parcel.files) form.append("files", file, path);
  const request = new XMLHttpRequest();
  const job = new Promise<Job>((done, failed) => {
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("error", () => failed(new Refusal(0, NO_ANSWER)));
    request.addEventListener("abort", () => failed(new Cancelled()));
    request.addEventListener("load", () => {
      if (request.status === 202) return done(JSON.parse(request.responseText) as Job);
      if (request.status === 401) signIn.needed();
      failed(refusal(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.open("POST", "api/scans");
    request.send(form);
  });
  return { job, cancel: () => request.abort() };
}
