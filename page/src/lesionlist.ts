/** All lesions in a table that can be sorted; a click goes to a point inside the lesion on its largest slice. By keys the
 * list is one stop, in which arrows go from lesion to lesion. */

import { type Findings, isVolume, type Lesion } from "./api";
import { h } from "./dom";
import { clamp } from "./grid";
import { counted, imageNumber, lesionSize, toFixed, trueMinus } from "./format";

type Column = { name: string; text: (lesion: Lesion) => string; key: (lesion: Lesion) => number };

const THIRDS = { upper: 0, middle: 1, lower: 2 } as const;
const UNKNOWN = Infinity; // is sorted last
const UNSTATED = "–";
const PRINTED = 20; // see print.css

export function lesionList(findings: Findings, go: (index: number) => void): HTMLElement {
  const { largest_lesions: lesions, lesion_count: count } = findings;
  const heading = h("h2", { id: "lesions" }, "Lesions", h("span", { class: "detail" }, counted(count, "lesion")));
  if (lesions.length === 0) {
    return h("section", { class: "panel", "aria-labelledby": "lesions" }, heading, h("p", {}, "No lesion was found."));
  }
  const columns = columnsFor(findings);
  const order = lesions.map((_, i) => i);
  let sorted = { column: 0, descending: true };
  let current = 0;

  const body = h("tbody", { keydown: (event) => moveBy(event as KeyboardEvent) });
  const heads = columns.map(({ name }, i) =>
    h("th", { scope: "col" }, h("button", { type: "button", class: "sort", click: () => sortBy(i) }, name)),
  );

  function row(index: number): HTMLElement {
    const lesion = lesions[index]!;
    const [first, ...others] = columns.map(({ text }) => text(lesion));
    const name = `Go to the lesion of ${first} ${columns[0]!.name}`;
    const button = h("button", { type: "button", class: "jump", tabindex: index === current ? 0 : -1, "aria-label": name }, first!);
    return h("tr", { click: () => choose(index), "data-lesion": index }, h("td", {}, button), ...others.map((words) => h("td", {}, words)));
  }

  /** Make one lesion that which the Tab key reaches. */
  function reach(index: number): HTMLElement {
    current = index;
    for (const button of body.querySelectorAll<HTMLElement>(".jump")) button.tabIndex = -1;
    const reached = body.querySelector<HTMLElement>(`[data-lesion="${index}"] .jump`)!;
    reached.tabIndex = 0;
    return reached;
  }

  function moveBy(event: KeyboardEvent): void {
    const at = order.indexOf(current);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: order.length - 1 }[event.key];
    if (to === undefined || !(event.target as HTMLElement).matches(".jump")) return;
    event.preventDefault();
    reach(order[clamp(to, 0, order.length - 1)]!).focus();
  }

  function choose(index: number): void {
    reach(index);
    for (const each of body.children) each.classList.toggle("chosen", (each as HTMLElement).dataset["lesion"] === String(index));
    go(index);
  }

  function sortBy(column: number): void {
    sorted = { column, descending: sorted.column === column ? !sorted.descending : column === 0 };
    const { key } = columns[column]!;
    const sign = sorted.descending ? -1 : 1;
    order.sort((a, b) => sign * compare(key(lesions[a]!), key(lesions[b]!)) || a - b);
    heads.forEach((head, i) => {
      if (i === column) head.setAttribute("aria-sort", sorted.descending ? "descending" : "ascending");
      else head.removeAttribute("aria-sort");
    });
    body.replaceChildren(...order.map(row));
  }

  sorted.descending = false;
  sortBy(0);
  const listed = lesions.length < count ? h("p", { class: "note" }, `The ${lesions.length} largest are listed.`) : null;
  return h(
    "section",
    { class: "panel", "aria-labelledby": "lesions" },
    heading,
    h(
      "div",
      { class: "lesion-scroll", role: "region", "aria-label": "List of lesions" },
      h("table", { class: "lesions" }, h("thead", {}, h("tr", {}, ...heads)), body),
    ),
    listed,
    lesions.length > PRINTED ? h("p", { class: "note on-paper" }, `The first ${PRINTED} of the list are printed.`) : null,
  );
}

const compare = (a: number, b: number): number => (a === b ? 0 : a < b ? -1 : 1);

function columnsFor(findings: Findings): Column[] {
  const size: Column = {
    name: findings.lesion_volume_ml === null ? "px" : "ml",
    text: lesionSize,
    key: (lesion) => lesion.volume_ml ?? lesion.area_px ?? UNKNOWN,
  };
  const side: Column = { name: "Side", text: ({ side }) => side ?? UNSTATED, key: ({ side }) => (side === null ? UNKNOWN : side === "right" ? 0 : 1) };
  const zone: Column = { name: "Zone", text: ({ zone }) => zone ?? UNSTATED, key: ({ zone }) => (zone === null ? UNKNOWN : THIRDS[zone]) };
  const density: Column = {
    name: "HU",
    text: ({ mean_hu }) => (mean_hu === null ? UNSTATED : trueMinus(toFixed(mean_hu, 0))),
    key: ({ mean_hu }) => mean_hu ?? UNKNOWN,
  };
  const image: Column = {
    name: "Image",
    text: ({ slice }) => String(imageNumber(findings, slice)),
    key: ({ slice }) => slice,
  };
  const columns = isVolume(findings) ? [size, side, zone, density, image] : [size, image];
  return columns.filter(({ text }) => findings.largest_lesions.some((lesion) => text(lesion) !== UNSTATED));
}
