/** Measured distances are kept for as long as the tab is open, also when it is loaded anew. */

import type { Ruler } from "./scene";

const key = (job: string): string => `rulers ${job}`;

export function storedRulers(job: string): Ruler[] {
  return JSON.parse(sessionStorage.getItem(key(job)) ?? "[]") as Ruler[];
}

export function storeRulers(job: string, rulers: readonly Ruler[]): void {
  if (rulers.length) sessionStorage.setItem(key(job), JSON.stringify(rulers));
  else sessionStorage.removeItem(key(job));
}
