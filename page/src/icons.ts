/** Icons of the tools, drawn on a square of 24. */

import { svg } from "./dom";

const REGION = "M9 5.500c4-2.500 9.500-.5 10 4.500s-2.500 9-7 9-7.500-2.500-7.500-6.500 1.500-5 4.500-7z";
const PATHS: Record<string, string[]> = {
  window: ["M12 3a9 9 0 1 0 0 18a9 9 0 1 0 0-18z", "M12 3v18", "M12 8h6.5M12 12h9M12 16h6.500"],
  scroll: ["M7 4h10v16H7z", "M12 7.5v9", "M9.500 10l2.500-2.500 2.500 2.500M9.500 14l2.500 2.500 2.500-2.500"],
  pan: ["M12 3v18M3 12h18", "M9 6l3-3 3 3M9 18l3 3 3-3M6 9l-3 3 3 3M18 9l3 3-3 3"],
  ruler: ["M3 16L16 3l5 5L8 21z", "M8 11l2 2M11 8l3 3M14 5l2 2"],
  plus: ["M12 5v14M5 12h14"],
  minus: ["M5 12h14"],
  fit: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5", "M9 9h6v6H9z"],
  crosshair: ["M12 3v6M12 15v6M3 12h6M15 12h6"],
  clear: ["M3 16L16 3l5 5L8 21z", "M15 15l6 6M21 15l-6 6"],
  lesion: [REGION], // filled, see the style
  contour: [REGION],
  lungs: ["M10 4.500c-4 1.500-6.500 6.500-6.500 11.500 0 2.700 1.200 3.800 3.200 3.600 2.200-.2 3.300-1.400 3.300-3.600z", "M14 4.500c4 1.500 6.500 6.500 6.500 11.500 0 2.700-1.200 3.800-3.200 3.600-2.200-.2-3.300-1.400-3.300-3.600z"],
  opacity: ["M12 3.500c3.500 4.500 6 7.200 6 10.700a6 6 0 0 1-12 0c0-3.500 2.500-6.200 6-10.700z"],
  add: ["M4 20c3.500.4 5.500-.8 5.500-3.500l-2-2c-2.800 0-2.300 4-3.500 5.500z", "M9 13.500L18.500 4l1.500 1.500-9.500 9.500"],
  erase: ["M9 19.500H20M4 14.500L13.500 5l6 6-8.500 8.500H9z", "M9 9.500l6 6"],
  remove: [REGION, "M10 10l5 5M15 10l-5 5"],
  keep: [REGION, "M9.500 12.500l2 2 4-4"],
  undo: ["M9 6L4 11l5 5", "M4 11h10a5 5 0 0 1 0 10h-3"],
  redo: ["M15 6l5 5-5 5", "M20 11H10a5 5 0 0 0 0 10h3"],
  full: ["M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5"],
};

export function icon(name: keyof typeof PATHS & string): SVGElement {
  return svg(
    "svg",
    { viewBox: "0 0 24 24", class: `icon icon-${name}`, "aria-hidden": "true" },
    ...PATHS[name]!.map((d) => svg("path", { d })),
  );
}
