import { expect, it } from "vitest";
import type { Job } from "../src/api";
import { scanOf } from "../src/result";

const job = (id: string, corrects: string | null): Job => ({ id, corrects }) as Job;

it("gives a scan and all corrections of it one name", () => {
  const [scan, one, other, again] = [job("a", null), job("b", "a"), job("c", "a"), job("d", "b")];
  for (const each of [scan, one, other, again]) {
    expect(scanOf(each, [scan, one, other, again].filter((one) => one !== each))).toBe("a");
  }
  expect(scanOf(job("e", null), [scan, one])).toBe("e");
});

it("names a scan whose first job was deleted by the id of that job", () => {
  expect(scanOf(job("d", "b"), [job("b", "a")])).toBe("a");
});
