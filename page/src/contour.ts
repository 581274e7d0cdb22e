/** The outline of a mask in a plane, as lines between its pixels' centres (marching squares). */

/** Segments (x, y, x, y) of the outline in pixels, where the centre of pixel (column, row) is (column + .5, row + .5).
 *
 * @param mask Pixels row by row; those with `isInside(value)` are inside.
 */
export function outline(
  mask: Uint8Array,
  width: number,
  height: number,
  isInside: (value: number) => boolean = (value) => value > 0,
): number[] {
  const segments: number[] = [];
  const inside = (x: number, y: number): boolean =>
    x >= 0 && y >= 0 && x < width && y < height && isInside(mask[y * width + x]!);
  for (let y = -1; y < height; y++) {
    let [topLeft, bottomLeft] = [false, false];
    for (let x = -1; x < width; x++) {
      const [topRight, bottomRight] = [inside(x + 1, y), inside(x + 1, y + 1)];
      const corners = (topLeft ? 8 : 0) | (topRight ? 4 : 0) | (bottomRight ? 2 : 0) | (bottomLeft ? 1 : 0);
      if (corners !== 0 && corners !== 15) {
        for (const [from, to] of EDGES[corners]!) segments.push(...middle(from, x, y), ...middle(to, x, y));
      }
      [topLeft, bottomLeft] = [topRight, bottomRight];
    }
  }
  return segments;
}

type Side = "top" | "right" | "bottom" | "left";

/** For each combination of corners inside (upper left 8, upper right 4, lower right 2, lower left 1) its lines. */
const EDGES: [Side, Side][][] = [
  [],
  [["left", "bottom"]],
  [["bottom", "right"]],
  [["left", "right"]],
  [["top", "right"]],
  [["top", "left"], ["bottom", "right"]],
  [["top", "bottom"]],
  [["top", "left"]],
  [["top", "left"]],
  [["top", "bottom"]],
  [["top", "right"], ["left", "bottom"]],
  [["top", "right"]],
  [["left", "right"]],
  [["bottom", "right"]],
  [["left", "bottom"]],
  [],
];

/** Middle of a side of the square between the centres of the pixels (x, y) and (x + 1, y + 1). */
function middle(side: Side, x: number, y: number): [number, number] {
  const [left, top] = [x + 0.5, y + 0.5];
  if (side === "top") return [left + 0.5, top];
  if (side === "bottom") return [left + 0.5, top + 1];
  return [side === "left" ? left : left + 1, top + 0.5];
}
