/** Chart of the lesion in each slice, which is also a slider: a click or the arrow keys go to a slice. */

import type { Findings } from "./api";
import { svg } from "./dom";
import { describeSlice, imageNumber } from "./format";
import { clamp } from "./grid";

const HEIGHT = 92;
const [LEAST_LEFT, RIGHT, TOP, BOTTOM] = [52, 10, 10, 22];
const LABEL_PX = 90; // least distance between the numbers below the axis
const LETTER_PX = 7.5;
const ROUND = [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10]; // times a power of ten

/** The next round number, as in the report's charts. */
export function roundUp(value: number): number {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return power * (ROUND.find((step) => step * power >= value * 0.999999) ?? 10);
}

export interface Chart {
  element: SVGSVGElement;
  /** Mark a slice of the file as the current one. */
  mark: (slice: number) => void;
}

/** @param ends The ends of the body at which the first and the last slice of the file lie. */
export function profileChart(findings: Findings, ends: [string, string] | null, go: (slice: number) => void): Chart {
  const { lesion, unit } = findings.profile;
  const count = lesion.length;
  const top = roundUp(Math.max(...lesion));
  const topLabel = `${top.toLocaleString("en")} ${unit}`;
  const left = Math.max(LEAST_LEFT, LETTER_PX * topLabel.length + 6);
  const base = HEIGHT - BOTTOM;
  let width = 0;
  let current = 0;
  const marker = svg("line", { class: "current", y1: TOP - 4, y2: base });
  const x = (slice: number): number => left + (slice / count) * (width - left - RIGHT);
  const y = (value: number): number => base - (value / top) * (base - TOP);
  const element = svg("svg", {
    class: "profile",
    height: HEIGHT,
    tabindex: 0,
    role: "slider",
    "aria-label": "Lesion in each slice: go to a slice",
    "aria-valuemin": 0,
    "aria-valuemax": count - 1,
    "aria-valuenow": 0,
  });

  /** Draw for the width that there is, so that text and lines keep their size. */
  function draw(): void {
    const bars = lesion.flatMap((value, i) =>
      value > 0
        ? [`M${x(i).toFixed(2)} ${base}V${y(value).toFixed(1)}h${Math.max(0.7, x(i + 1) - x(i) - 0.3).toFixed(2)}V${base}z`]
        : [],
    );
    element.replaceChildren(
      svg("line", { class: "axis", x1: left, x2: width - RIGHT, y1: base, y2: base }),
      svg("line", { class: "axis", x1: left, x2: width - RIGHT, y1: y(top), y2: y(top) }),
      svg("text", { x: left - 6, y: y(top) + 5, "text-anchor": "end" }, topLabel),
      svg("text", { x: left - 6, y: base + 4, "text-anchor": "end" }, "0"),
      svg("path", { class: "area", d: bars.join("") }),
      marker,
      ...numbers(),
    );
    mark(current);
  }

  /** Image numbers below the axis, as many as there is room for. */
  function numbers(): SVGElement[] {
    const room = Math.max(1, Math.floor((width - left - RIGHT) / LABEL_PX));
    const step = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].find((each) => count / each <= room) ?? count;
    const between = Array.from({ length: Math.floor(count / step) }, (_, i) => (i + 1) * step - 1);
    const [from, to] = [x(0.5) + LETTER_PX * (words(0).length + 3), x(count - 0.5) - LETTER_PX * (words(count - 1).length + 3)];
    const inner = between.filter((slice) => x(slice + 0.5) > from && x(slice + 0.5) < to);
    return [0, ...inner, count - 1].filter((slice, i, all) => all.indexOf(slice) === i).map((slice) => {
      const anchor = slice === 0 ? "start" : slice === count - 1 ? "end" : "middle";
      return svg("text", { x: x(slice + 0.5).toFixed(1), y: base + 16, "text-anchor": anchor }, words(slice));
    });
  }

  function words(slice: number): string {
    const end = slice === 0 ? ends?.[0] : slice === count - 1 ? ends?.[1] : null;
    return `${slice === 0 ? "image " : ""}${imageNumber(findings, slice)}${end ? `, ${end}` : ""}`;
  }

  function mark(slice: number): void {
    current = slice;
    const middle = x(slice + 0.5).toFixed(1);
    marker.setAttribute("x1", middle);
    marker.setAttribute("x2", middle);
    element.setAttribute("aria-valuenow", String(slice));
    element.setAttribute("aria-valuetext", describeSlice(findings, slice));
  }

  const toSlice = (slice: number): number => clamp(slice, 0, count - 1);
  const sliceAt = (event: PointerEvent): number => {
    const x_px = event.clientX - element.getBoundingClientRect().left;
    return toSlice(Math.floor(((x_px - left) / (width - left - RIGHT)) * count));
  };
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
    go(toSlice(current + step));
  });
  new ResizeObserver(() => {
    if (element.clientWidth === width || element.clientWidth === 0) return;
    width = element.clientWidth;
    draw();
  }).observe(element);
  return { element, mark };
}
