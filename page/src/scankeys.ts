/** What keys do on the scan, and the words that say so. */

import type { WindowName } from "./windows";

export const KEYS =
  "Drag with the chosen tool; a click moves the crosshair. Wheel or up and down arrows: slices, up is towards the head. Left and right arrows: images in the order of the file. Ctrl and wheel, two fingers, + and −: zoom. Right button or Shift: move. L lesions, C contours, X crosshair, F full screen, 1 to 4 windows. M measures: arrows (with Shift faster) and Enter set one end, then the other.";
export const BRUSH_KEYS =
  "Draw on a slice; drag with the right button to move the image. Keys on the scan: arrows move the brush, faster with Shift; Space paints, A adds, E erases, Ctrl+Z undoes, Ctrl+Y does again; Page Up and Page Down change the slice.";

const ROTATION_DEGREES = 10;

/** Slices towards the head. */
export const SCROLLS: Record<string, number> = { ArrowUp: 1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
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
