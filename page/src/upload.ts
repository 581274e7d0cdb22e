/** Upload of one scan, by XMLHttpRequest since fetch does not report the progress of a request body. */

import { type Job, NO_ANSWER, RequestError, requestError, signIn } from "./api";
import type { ScanFiles } from "./grouping";

export interface Upload {
  job: Promise<Job>;
  cancel: () => void;
}

export class Cancelled extends Error {}

export function upload(scan: ScanFiles, progress: (share: number) => void): Upload {
  const form = new FormData();
  for (const { path, file } of scan.files) form.append("files", file, path);
  const request = new XMLHttpRequest();
  const job = new Promise<Job>((resolve, reject) => {
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) progress(event.loaded / event.total);
    });
    request.addEventListener("error", () => reject(new RequestError(0, NO_ANSWER)));
    request.addEventListener("abort", () => reject(new Cancelled()));
    request.addEventListener("load", () => {
      if (request.status === 202) return resolve(JSON.parse(request.responseText) as Job);
      if (request.status === 401) signIn.required();
      reject(requestError(request.status, request.responseText, request.getResponseHeader("Retry-After")));
    });
    request.open("POST", "api/scans");
    request.send(form);
  });
  return { job, cancel: () => request.abort() };
}
