/** The DICOM series of an upload that holds several: which one was taken, and taking another. */

import { api, type Job, type Series } from "./api";
import { h } from "./dom";
import { counted, errorText, sentence } from "./format";

/** A section that appears once the server has named several series. */
export function seriesPicker(job: Job, taken: (job: Job) => void): HTMLElement {
  const element = h("section", { class: "panel series", "aria-labelledby": "series", hidden: true });
  const message = h("p", { class: "refused", role: "alert" });

  async function take(series: Series, button: HTMLButtonElement): Promise<void> {
    button.disabled = true;
    try {
      taken(await api.takeSeries(job.id, series.label));
    } catch (error) {
      button.disabled = false;
      message.textContent = errorText(error);
    }
  }

  function item(series: Series): HTMLElement {
    const button = h("button", { type: "button", click: () => void take(series, button) }, "Take this one");
    button.setAttribute("aria-label", `Take series ${series.label}`);
    const why = series.rejection_reason === null ? button : h("span", { class: "detail" }, sentence(series.rejection_reason));
    return h(
      "li",
      { class: series.chosen ? "chosen" : "" },
      h("div", {}, h("strong", {}, `Series ${series.label}`), " ", series.description),
      h("div", { class: "detail" }, describe(series)),
      series.chosen ? h("span", { class: "detail" }, h("strong", {}, "Shown here")) : why,
    );
  }

  async function load(): Promise<void> {
    const series = await api.series(job.id);
    if (series.length < 2) return;
    const [usable, others] = [series.filter((each) => !each.rejection_reason), series.filter((each) => each.rejection_reason)];
    element.replaceChildren(
      h("h2", { id: "series" }, "Series of this study"),
      h("ul", { class: "series-list" }, ...usable.map(item)),
      others.length
        ? h("details", {}, h("summary", {}, `${others.length} series that cannot be taken`), h("ul", { class: "series-list" }, ...others.map(item)))
        : "",
      message,
    );
    element.hidden = false;
  }

  load().catch(() => {}); // the result is complete without the picker
  return element;
}

function describe(series: Series): string {
  const distance = series.slice_distance_mm === null ? "" : `${series.slice_distance_mm} mm apart`;
  const parts = [series.kernel && `kernel ${series.kernel}`, counted(series.slices, "slice"), distance, series.axial ? "" : "not axial"];
  return parts.filter(Boolean).join(", ");
}
