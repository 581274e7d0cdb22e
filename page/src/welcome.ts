/** The first screen: where a scan is dropped, and what may be. */

import type { Limits } from "./api";
import { h, svg } from "./dom";
import { filesOfDrop, filesOfInput } from "./dropped";
import { type Dropped } from "./grouping";
import { limitsInWords } from "./words";

export interface Welcome {
  element: HTMLElement;
  tell: (limits: Limits) => void;
}

export function welcome(taken: (files: Dropped[]) => void): Welcome {
  const limits = h("p", { class: "note", id: "limits" });
  const chooser = (id: string, text: string, folder: boolean, primary: boolean): HTMLElement[] => {
    const input = h("input", { type: "file", id, multiple: true, class: "spoken", "aria-describedby": "limits" });
    input.webkitdirectory = folder;
    input.addEventListener("change", () => {
      taken(filesOfInput(input));
      input.value = ""; // so that the same file can be chosen again
    });
    return [input, h("label", { for: id, class: `button ${primary ? "primary" : ""}` }, text)];
  };
  const element = h(
    "section",
    { class: "welcome" },
    h("h1", {}, "How much of the lung is diseased?"),
    h("p", { class: "lead" }, "Drop a chest CT. groundglass marks what looks like COVID-19 lesions, measures them in ml and % of lung, and lets you correct it."),
    h(
      "div",
      { class: "drop" },
      picture(),
      h("p", { class: "drop-here" }, "Drop a scan here"),
      h(
        "div",
        { class: "answers" },
        ...chooser("choose-files", "Choose files", false, true),
        ...chooser("choose-folder", "Choose a DICOM folder", true, false),
      ),
      h(
        "ul",
        { class: "kinds" },
        ...["NIfTI", "DICOM folder", "ZIP", "MHA, NRRD", "PNG or JPEG slices"].map((kind) => h("li", {}, kind)),
      ),
      limits,
    ),
    h(
      "ul",
      { class: "promises" },
      promise("It stays here", "The scan goes to this groundglass and nowhere else. No account, no cloud, no tracking."),
      promise("Every number has its reason", "What is not known is called unknown, and why. It is never 0."),
      promise("You have the last word", "Mend the mask with a brush. The original is kept, the numbers are made anew."),
    ),
  );
  return { element, tell: (told) => void (limits.textContent = limitsInWords(told)) };
}

function promise(title: string, words: string): HTMLElement {
  return h("li", {}, h("h2", {}, title), h("p", {}, words));
}

/** Lungs from the front, with a lesion. */
function picture(): SVGElement {
  const lung = "M74 22c-26 8-48 52-48 92 0 20 10 30 26 28 18-2 26-12 26-30z";
  return svg(
    "svg",
    { viewBox: "0 0 180 160", class: "lungs", "aria-hidden": "true" },
    svg("path", { class: "airway", d: "M90 6v34m0 0c0 12-10 14-22 20m22-20c0 12 10 14 22 20" }),
    svg("path", { class: "outline", d: lung }),
    svg("path", { class: "outline", d: lung, transform: "translate(180 0) scale(-1 1)" }),
    svg("circle", { class: "spot", cx: 50, cy: 112, r: 15 }),
    svg("circle", { class: "spot", cx: 128, cy: 122, r: 8 }),
    svg("circle", { class: "spot", cx: 122, cy: 84, r: 5 }),
  );
}

/** Take drops anywhere on the page. */
export function takeDrops(taken: (files: Dropped[]) => void): void {
  const over = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  let left = 0;
  addEventListener("dragover", (event) => {
    if (!over(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
    clearTimeout(left);
    left = window.setTimeout(() => document.body.classList.remove("dragging"), 200); // it is told all the time while over
  });
  addEventListener("drop", (event) => {
    if (!event.dataTransfer || !over(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    void filesOfDrop(event.dataTransfer).then(taken);
  });
}
