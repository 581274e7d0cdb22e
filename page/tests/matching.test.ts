import { expect, it } from "vitest";
import { counterpart, type Matched } from "../src/matching";

const near: Matched = { grid: { dims: [101, 101, 40], spacing_mm: [1, 1, 5] }, lungs: [4, 34] };
const wide: Matched = { grid: { dims: [201, 301, 70], spacing_mm: [0.8, 0.5, 2.5] }, lungs: [10, 60] };

it("finds the point at the same distance from the middle of the slice, whatever the field of view", () => {
  expect(counterpart([50, 50, 4], near, wide)).toEqual([100, 150, 10]);
  expect(counterpart([70, 40, 4], near, wide)).toEqual([125, 130, 10]); // 20 mm to the left, 10 mm to the front
});

it("finds the slice at the same share of the height of the lungs, and its way back", () => {
  expect(counterpart([50, 50, 19], near, wide)[2]).toBe(35);
  expect(counterpart(counterpart([70, 40, 25], near, wide), wide, near).map((n) => Number(n.toFixed(9)))).toEqual([70, 40, 25]);
});
