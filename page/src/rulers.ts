/** Measured distances are kept for each scan, whatever mask is shown, as long as the tab is open; also if it is loaded anew. */

import type { Ruler } from "./scene";

const key = (scan: string): string => `rulers ${scan}`;

export function storedRulers(scan: string): Ruler[] {
  return JSON.parse(sessionStorage.getItem(key(scan)) ?? "[]") as Ruler[];
}

export function storeRulers(scan: string, rulers: readonly Ruler[]): void {
  if (rulers.length) sessionStorage.setItem(key(scan), JSON.stringify(rulers));
  else sessionStorage.removeItem(key(scan));
}
