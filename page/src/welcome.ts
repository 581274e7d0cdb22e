/** The start screen: where scans are dropped, and which are accepted. */

import type { Limits } from "./api";
import { h, svg } from "./dom";
import { filesOfDrop, filesOfInput } from "./dropped";
import { describeLimits, errorText } from "./format";
import type { DroppedFile } from "./grouping";

export interface Welcome {
  element: HTMLElement;
  showLimits: (limits: Limits) => void;
}

export function welcome(chosen: (files: DroppedFile[]) => void): Welcome {
  const limits = h("p", { class: "note", id: "limits" });
  const chooser = (id: string, text: string, folder: boolean, primary: boolean): HTMLElement[] => {
    const input = h("input", { type: "file", id, multiple: true, class: "visually-hidden", "aria-describedby": "limits" });
    input.webkitdirectory = folder;
    input.addEventListener("change", () => {
      chosen(filesOfInput(input));
      input.value = ""; // so that the same file can be chosen again
    });
    return [input, h("label", { for: id, class: `button ${primary ? "primary" : ""}` }, text)];
  };
  const element = h(
    "section",
    { class: "welcome" },
    h("h1", {}, "How much of the lung is diseased?"),
    h("p", { class: "lead" }, "Drop a chest CT. groundglass marks what looks like COVID-19 lesions, measures them in ml and in % of the lung, and lets you correct the mask."),
    h(
      "div",
      { class: "drop" },
      lungsDrawing(),
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
      promise("Your scan stays here", "It is sent to this groundglass server and nowhere else. No account, no cloud, no tracking."),
      promise("Unknown is never 0", "A value that cannot be measured is shown as unknown, with the reason."),
      promise("You have the last word", "Correct the mask with a brush. The original is kept, and all numbers are computed again."),
    ),
  );
  return { element, showLimits: (given) => void (limits.textContent = describeLimits(given)) };
}

function promise(title: string, text: string): HTMLElement {
  return h("li", {}, h("h2", {}, title), h("p", {}, text));
}

/** A drawing of the lungs from the front, with lesions. */
function lungsDrawing(): SVGElement {
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

/** Accept drops anywhere on the page. */
export function acceptDrops(chosen: (files: DroppedFile[]) => void, failed: (reason: string) => void): void {
  const hasFiles = (event: DragEvent): boolean => event.dataTransfer?.types.includes("Files") ?? false;
  let timer = 0;
  addEventListener("dragover", (event) => {
    if (!hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.add("dragging");
    clearTimeout(timer);
    timer = window.setTimeout(() => document.body.classList.remove("dragging"), 200); // dragover repeats as long as the pointer is over the page
  });
  addEventListener("drop", (event) => {
    if (!event.dataTransfer || !hasFiles(event)) return;
    event.preventDefault();
    document.body.classList.remove("dragging");
    filesOfDrop(event.dataTransfer).then(chosen, (error: unknown) => failed(errorText(error)));
  });
}
