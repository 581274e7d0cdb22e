/** What keys do on the scan, and the words that say so. */

import { h } from "./dom";
import type { WindowName } from "./windows";

type Rows = readonly (readonly [string, string])[];

export const KEYS: Rows = [
  ["Wheel, ↑ ↓, Page ↑ ↓", "slices; up is towards the head"],
  ["← →, Home, End", "images in the order of the file"],
  ["Drag", "the chosen tool"],
  ["Click", "moves the crosshair"],
  ["Double click", "one view, or all of them"],
  ["Ctrl and wheel, two fingers, + −, 0", "zoom; the whole slice"],
  ["Right button, Shift and drag", "moves the image"],
  ["1 2 3 4", "window of lung, lesion, mediastinum, bone"],
  ["L, C, X, F", "lesions, contours, crosshair, full screen"],
  ["M", "measure: arrows (with Shift faster) and Enter set one end, then the other"],
];
export const BRUSH_KEYS: Rows = [
  ["Drag, click", "draw on the slice"],
  ["A, E", "add, erase"],
  ["Arrows, Shift and arrows", "move the brush, move it faster"],
  ["Space", "paint"],
  ["Page ↑ ↓, wheel", "slices"],
  ["Ctrl and Z, Ctrl and Y", "undo, redo"],
  ["Escape", "leaves the correction"],
  ["Right button, Shift and drag", "moves the image"],
  ["Ctrl and wheel, two fingers", "zoom"],
];

export function keyTable(rows: Rows): HTMLElement {
  return h("dl", {}, ...rows.flatMap(([keys, words]) => [h("dt", {}, keys), h("dd", {}, words)]));
}

const ROTATION_DEGREES = 10;

/** Slices towards the head. */
export const SCROLLS: Record<string, number> = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
/** Zoom in, zoom out, the whole slice. */
export const ZOOMS: Record<string, 1 | -1 | 0> = { "+": 1, "=": 1, "-": -1, "0": 0 };
/** Images in the order of the file. */
export const STEPS: Record<string, number> = { ArrowRight: 1, ArrowLeft: -1, Home: -1e6, End: 1e6 };
export const WINDOW_KEYS: Record<string, WindowName> = { "1": "lung", "2": "lesion", "3": "mediastinum", "4": "bone" };
/** Controls that are clicked. */
export const CONTROL_KEYS: Record<string, string> = {
  l: "#lesion",
  c: "#contour",
  x: "[aria-label=Crosshair]",
  f: "[aria-label='Full screen']",
};
/** Degrees to the side and upwards. */
export const ROTATIONS: Record<string, [number, number]> = {
  ArrowLeft: [-ROTATION_DEGREES, 0],
  ArrowRight: [ROTATION_DEGREES, 0],
  ArrowUp: [0, ROTATION_DEGREES],
  ArrowDown: [0, -ROTATION_DEGREES],
};
