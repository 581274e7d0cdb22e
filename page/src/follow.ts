/** Following a job by server-sent events, also across restarts of the server. */

import { api, type Job, RequestError } from "./api";

export interface JobListener {
  changed: (job: Job) => void;
  deleted: () => void;
  /** Called with true when the connection is lost, and with false when it is back. */
  disconnected: (lost: boolean) => void;
}

const MIN_PAUSE_MS = 500;
const MAX_PAUSE_MS = 8000;

export const isOver = (job: Job): boolean => job.status === "done" || job.status === "failed";

/** Follow a job until it is over; call the returned function to stop before. */
export function follow(id: string, listener: JobListener): () => void {
  let source: EventSource | null = null;
  let timer = 0;
  let pause = MIN_PAUSE_MS;
  let stopped = false;

  function stop(): void {
    stopped = true;
    source?.close();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", visibilityChanged);
  }

  function update(job: Job): void {
    if (stopped) return;
    pause = MIN_PAUSE_MS;
    listener.disconnected(false);
    if (isOver(job)) stop();
    listener.changed(job);
  }

  function listen(): void {
    source = new EventSource(api.eventsPath(id));
    source.addEventListener("job", (event) => update(JSON.parse((event as MessageEvent<string>).data) as Job));
    source.addEventListener("error", () => {
      source?.close();
      if (!stopped) retry();
    });
  }

  function retry(): void {
    clearTimeout(timer);
    timer = window.setTimeout(() => void resume(), pause);
    pause = Math.min(2 * pause, MAX_PAUSE_MS);
  }

  /** Ask for the job before listening: an EventSource cannot distinguish a stopped server from a deleted job. */
  async function resume(): Promise<void> {
    try {
      const job = await api.job(id);
      if (stopped) return;
      update(job);
      if (!isOver(job)) listen();
    } catch (error) {
      if (stopped) return;
      if (error instanceof RequestError && error.status === 404) {
        stop();
        listener.deleted();
      } else {
        listener.disconnected(true);
        retry();
      }
    }
  }

  /** A hidden tab closes its connection: a browser opens at most six to a server. */
  function visibilityChanged(): void {
    source?.close();
    clearTimeout(timer);
    if (!document.hidden) void resume();
  }

  document.addEventListener("visibilitychange", visibilityChanged);
  if (!document.hidden) listen();
  return stop;
}
