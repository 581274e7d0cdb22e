/** Following a job by server-sent events, across a server that stops and starts again. */

import { api, type Job, Refusal } from "./api";

export interface Watcher {
  changed: (job: Job) => void;
  gone: () => void;
  /** The connection is lost (true), or there again (false). */
  lost: (lost: boolean) => void;
}

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 8000;

export const isOver = (job: Job): boolean => job.status === "done" || job.status === "failed";

/** Follow until the job is over; call what is returned to stop before. */
export function follow(id: string, watcher: Watcher): () => void {
  let source: EventSource | null = null;
  let timer = 0;
  let pause = FIRST_PAUSE_MS;
  let stopped = false;

  function stop(): void {
    stopped = true;
    source?.close();
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", seen);
  }

  function tell(job: Job): void {
    if (stopped) return;
    pause = FIRST_PAUSE_MS;
    watcher.lost(false);
    if (isOver(job)) stop();
    watcher.changed(job);
  }

  function listen(): void {
    source = new EventSource(api.eventsPath(id));
    source.addEventListener("job", (event) => tell(JSON.parse((event as MessageEvent<string>).data) as Job));
    source.addEventListener("error", () => {
      source?.close();
      if (!stopped) again();
    });
  }

  function again(): void {
    clearTimeout(timer);
    timer = window.setTimeout(() => void resume(), pause);
    pause = Math.min(2 * pause, LONGEST_PAUSE_MS);
  }

  /** Ask before listening: an EventSource does not tell a server that is away from a job that is gone. */
  async function resume(): Promise<void> {
    try {
      const job = await api.job(id);
      if (stopped) return;
      tell(job);
      if (!isOver(job)) listen();
    } catch (error) {
      if (stopped) return;
      if (error instanceof Refusal && error.status === 404) {
        stop();
        watcher.gone();
      } else {
        watcher.lost(true);
        again();
      }
    }
  }

  /** A hidden tab gives its connection back: a browser keeps only six to a server. */
  function seen(): void {
    source?.close();
    clearTimeout(timer);
    if (!document.hidden) void resume();
  }

  document.addEventListener("visibilitychange", seen);
  if (!document.hidden) listen();
  return stop;
}
