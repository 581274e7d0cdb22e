/** What is drawn over a plane, in CSS pixels whatever the zoom: the crosshair, rulers, a scale and the directions. */

import type { Pane } from "./pane";
import { PLANES } from "./planes";
import type { Scene } from "./scene";

const CROSSHAIR_GAP = 14;
const TEXT = "#dfe7ea";
const PLATE = "rgb(0 0 0 / .6)";
const CROSSHAIR = "rgb(120 205 215 / .8)";
const RULER = "#ffe27a";
const RULER_WORDS_PX = 80;
const LEAST_FOR_SCALE_PX = 240; // in a smaller pane there is room for its words only
const SCALES_MM = [1, 2, 5, 10, 20, 50, 100, 200];

export function drawOverlay(context: CanvasRenderingContext2D, pane: Pane, scene: Scene): void {
  if (scene.showCrosshair) drawCrosshair(context, pane, scene);
  drawRulers(context, pane, scene);
  if (pane.canvas.clientWidth >= LEAST_FOR_SCALE_PX) drawScale(context, pane, scene);
  if (scene.hasDirections) drawDirections(context, pane);
}

function drawCrosshair(context: CanvasRenderingContext2D, pane: Pane, scene: Scene): void {
  const [x, y] = pane.pointOf(scene.cursor).map((n) => Math.round(n) + 0.5) as [number, number];
  const [width, height, gap] = [pane.canvas.clientWidth, pane.canvas.clientHeight, CROSSHAIR_GAP];
  context.beginPath();
  for (const [fromX, fromY, toX, toY] of [
    [0, y, x - gap, y],
    [x + gap, y, width, y],
    [x, 0, x, y - gap],
    [x, y + gap, x, height],
  ] as const) {
    context.moveTo(fromX, fromY);
    context.lineTo(toX, toY);
  }
  context.strokeStyle = CROSSHAIR;
  context.lineWidth = 1;
  context.stroke();
}

function drawRulers(context: CanvasRenderingContext2D, pane: Pane, scene: Scene): void {
  const slice = scene.slice(pane.name);
  for (const ruler of [...scene.rulers, ...(pane.draft ? [pane.draft] : [])]) {
    if (ruler.plane !== pane.name || ruler.slice !== slice) continue;
    const [[x, y], [toX, toY]] = [pane.pointOf(ruler.from), pane.pointOf(ruler.to)];
    context.beginPath();
    context.moveTo(x, y);
    context.lineTo(toX, toY);
    for (const [atX, atY] of [[x, y], [toX, toY]] as const) {
      context.moveTo(atX + 4, atY);
      context.arc(atX, atY, 4, 0, 2 * Math.PI);
    }
    halo(context, RULER, 1.5);
    const length = scene.length(ruler.from, ruler.to);
    const beside = toX < pane.canvas.clientWidth - RULER_WORDS_PX ? 1 : -1; // the words must not leave the pane
    const words = `${length.toFixed(length < 100 ? 1 : 0)} ${scene.unit}`;
    text(context, words, toX + 8 * beside, Math.max(20, toY - 8), RULER, beside > 0 ? "left" : "right");
  }
}

/** A scale in the lower right corner: the longest round length that takes at most a quarter of the width. */
function drawScale(context: CanvasRenderingContext2D, pane: Pane, scene: Scene): void {
  const [width, height] = [pane.canvas.clientWidth, pane.canvas.clientHeight];
  const length = SCALES_MM.findLast((mm) => mm * pane.pixelsPerMm <= width / 4);
  if (!length) return;
  const [right, y] = [width - 14.5, height - 16.5];
  const left = right - length * pane.pixelsPerMm;
  context.beginPath();
  context.moveTo(left, y - 4);
  context.lineTo(left, y);
  context.lineTo(right, y);
  context.lineTo(right, y - 4);
  halo(context, TEXT, 1);
  text(context, `${length} ${scene.unit}`, (left + right) / 2, y - 8, TEXT, "center");
}

function drawDirections(context: CanvasRenderingContext2D, pane: Pane): void {
  const [width, height] = [pane.canvas.clientWidth, pane.canvas.clientHeight];
  const [left, right, up, down] = PLANES[pane.name].ends;
  text(context, left, 10, height / 2 + 5, TEXT);
  text(context, right, width - 10, height / 2 + 5, TEXT, "right");
  text(context, up, width / 2, 20, TEXT, "center");
  const beside = pane.foot.offsetLeft + pane.foot.offsetWidth + 16; // the words at the foot must not hide it
  text(context, down, Math.max(width / 2, beside), height - 12, TEXT, "center");
}

/** Stroke the current path with a dark rim, so that it is visible on any grey. */
function halo(context: CanvasRenderingContext2D, colour: string, width: number): void {
  context.strokeStyle = "rgb(0 0 0 / .65)";
  context.lineWidth = width + 2;
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = width;
  context.stroke();
}

/** Write words on a dark plate, like the other words on a pane: on white tissue a rim alone makes a box of an I. */
function text(
  context: CanvasRenderingContext2D,
  words: string,
  x: number,
  y: number,
  colour: string,
  align: CanvasTextAlign = "left",
): void {
  context.font = "600 13px system-ui, sans-serif";
  context.textAlign = align;
  const { actualBoundingBoxLeft: left, actualBoundingBoxRight: right } = context.measureText(words);
  context.beginPath();
  context.roundRect(x - left - 5, y - 14, left + right + 10, 19, 4);
  context.fillStyle = PLATE;
  context.fill();
  context.fillStyle = colour;
  context.fillText(words, x, y);
}
