/** Chart of the lesion in each slice, which is also a slider: a click or the arrow keys go to a slice. */

import type { Findings } from "./api";
import { svg } from "./dom";
import { describeSlice } from "./format";

const WIDTH = 640;
const HEIGHT = 132;
const [LEFT, RIGHT, TOP, BOTTOM] = [44, 8, 8, 30];

/** The next round number: 1, 2 or 5 times a power of ten, as in the report's charts. */
export function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * ([1, 2, 5, 10].find((step) => step * power >= value * 0.999999) ?? 10);
}

export interface Chart {
  element: SVGSVGElement;
  /** Mark a slice of the file as the current one. */
  mark: (slice: number) => void;
}

export function profileChart(findings: Findings, ends: [string, string] | null, go: (slice: number) => void): Chart {
  const { lesion } = findings.profile;
  const count = lesion.length;
  const top = roundUp(Math.max(...lesion));
  const x = (slice: number): number => LEFT + (slice / count) * (WIDTH - LEFT - RIGHT);
  const y = (value: number): number => HEIGHT - BOTTOM - (value / top) * (HEIGHT - TOP - BOTTOM);
  const base = y(0);
  let current = 0;

  const bars = lesion.map((value, i) =>
    value > 0
      ? svg("rect", {
          class: "area",
          x: x(i).toFixed(2),
          width: Math.max(0.6, x(i + 1) - x(i) - 0.3).toFixed(2),
          y: y(value).toFixed(1),
          height: (base - y(value)).toFixed(1),
        })
      : null,
  );
  const marker = svg("line", { class: "current", y1: TOP, y2: base });
  const numbers = [...new Set([0, Math.floor(count / 2), count - 1])].map((slice) =>
    svg("text", { x: x(slice + 0.5).toFixed(1), y: base + 16, "text-anchor": anchor(slice, count) }, label(slice)),
  );
  const element = svg(
    "svg",
    {
      viewBox: `0 0 ${WIDTH} ${HEIGHT}`,
      class: "profile",
      tabindex: 0,
      role: "slider",
      "aria-label": "Lesion in each slice: go to a slice",
      "aria-valuemin": 0,
      "aria-valuemax": count - 1,
      "aria-valuenow": 0,
    },
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: base, y2: base }),
    svg("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: y(top), y2: y(top) }),
    svg("text", { x: LEFT - 6, y: y(top) + 5, "text-anchor": "end" }, String(top)),
    svg("text", { x: LEFT - 6, y: base + 4, "text-anchor": "end" }, "0"),
    ...bars,
    marker,
    ...numbers,
  );

  function label(slice: number): string {
    if (ends && slice === 0) return `${slice}, ${ends[0]}`;
    if (ends && slice === count - 1) return `${slice}, ${ends[1]}`;
    return String(slice);
  }

  function sliceAt(event: PointerEvent): number {
    const box = element.getBoundingClientRect();
    const chartX = ((event.clientX - box.left) / box.width) * WIDTH;
    return clamp(Math.floor(((chartX - LEFT) / (WIDTH - LEFT - RIGHT)) * count));
  }

  const clamp = (slice: number): number => Math.min(count - 1, Math.max(0, slice));
  element.addEventListener("pointerdown", (event) => {
    element.setPointerCapture(event.pointerId);
    go(sliceAt(event));
  });
  element.addEventListener("pointermove", (event) => {
    if (element.hasPointerCapture(event.pointerId)) go(sliceAt(event));
  });
  const steps: Record<string, number> = {
    ...{ ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1 },
    ...{ PageUp: 10, PageDown: -10, Home: -count, End: count },
  };
  element.addEventListener("keydown", (event) => {
    const step = steps[event.key];
    if (step === undefined) return;
    event.preventDefault();
    go(clamp(current + step));
  });

  return {
    element,
    mark(slice) {
      current = slice;
      const middle = x(slice + 0.5).toFixed(1);
      marker.setAttribute("x1", middle);
      marker.setAttribute("x2", middle);
      element.setAttribute("aria-valuenow", String(slice));
      element.setAttribute("aria-valuetext", describeSlice(findings, slice));
    },
  };
}

function anchor(slice: number, count: number): string {
  if (slice === 0) return "start";
  return slice === count - 1 ? "end" : "middle";
}
