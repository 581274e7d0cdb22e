/** The burden beside the scan: by lung and by zone, with the reasons for unknown values. */

import { type Findings, isVolume, type Zone } from "./api";
import { classColours, css } from "./colours";
import { h } from "./dom";
import { ml, mlDigits, range, rounded, sentence, unknownBurden } from "./format";

/** @param uncertainty How far the numbers can be trusted, in words. */
export function burdenPanel(findings: Findings, uncertainty: string): HTMLElement {
  const share = findings.lesion_share_of_lung_percent;
  const volume = findings.lesion_volume_ml;
  const digits = mlDigits(volume);
  const shareUnit = findings.input.kind === "pictures" ? "% of the lung’s area" : "% of the lung";
  return h(
    "section",
    { class: "panel", "aria-labelledby": "burden" },
    h("h2", { id: "burden" }, "Burden"),
    h(
      "p",
      { class: "burden" },
      h("span", { class: "figure" }, h("strong", {}, rounded(share)), " ", share === null ? "share" : shareUnit, interval(findings.lesion_share_interval_percent, 1, "%")),
      isVolume(findings) && h("span", { class: "figure" }, h("strong", {}, ml(volume)), " ", volume === null ? "volume" : "ml of lesion", interval(findings.lesion_volume_interval_ml, digits, "ml")),
    ),
    extent(findings),
    uncertainty ? h("p", { class: "note" }, uncertainty) : null,
    lungTable(findings),
    ...unknownBurden(findings).map((reason) => h("p", { class: "note" }, sentence(reason))),
    zoneMap(findings),
  );
}

function interval(limits: [number, number] | null, digits: number, unit: string): HTMLElement | null {
  return limits && h("small", {}, "80 % interval", h("br", {}), `${range(limits, digits)} ${unit}`);
}

function extent({ extent: found }: Findings): HTMLElement | null {
  return found && h("p", {}, "Extent: ", h("strong", {}, found.name), h("span", { class: "detail" }, ` (${found.range} of the lung)`));
}

function lungTable(findings: Findings): HTMLElement {
  const rows = [
    ["both lungs", findings],
    ["right lung", findings.right_lung],
    ["left lung", findings.left_lung],
  ] as const;
  const columns = (texts: string[]): string[] => (isVolume(findings) ? texts : texts.slice(0, 2));
  return h(
    "table",
    { class: "burden-table" },
    h("caption", { class: "visually-hidden" }, "Burden by lung"),
    h("thead", {}, row("th", columns(["", "lesion, %", "lesion, ml", "lung, ml"]))),
    h(
      "tbody",
      {},
      ...rows.map(([name, burden]) =>
        row("td", columns([
          name,
          rounded(burden.lesion_share_of_lung_percent),
          ml(burden.lesion_volume_ml),
          rounded(burden.lung_volume_ml, 0),
        ])),
      ),
      ...classRows(findings),
    ),
  );
}

/** The lesions by class, for a model that has classes. */
function classRows(findings: Findings): HTMLElement[] {
  const { classes } = findings;
  const colours = classColours(classes.map((each) => each.name));
  return classes.map((each, i) => {
    const texts = [each.name, rounded(each.lesion_share_of_lung_percent)];
    const cells = row("td", isVolume(findings) ? [...texts, ml(each.volume_ml), ""] : texts);
    const swatch = h("span", { class: "swatch", "aria-hidden": "true" });
    swatch.style.background = css(colours[i]!);
    cells.firstElementChild!.prepend(swatch);
    return cells;
  });
}

function row(cell: "th" | "td", texts: string[]): HTMLElement {
  return h(
    "tr",
    {},
    ...texts.map((text, i) =>
      text === "" ? h("td", {}) : i === 0 && cell === "td" ? h("th", { scope: "row" }, text) : h(cell, cell === "th" ? { scope: "col" } : {}, text),
    ),
  );
}

/** Thirds of each lung, arranged as in the slices: the patient's right on the left. */
function zoneMap(findings: Findings): HTMLElement {
  const { zones } = findings;
  if (!zones) {
    return h("p", { class: "note" }, `Zones unknown: ${findings.unknown["zones"] ?? "no reason was given"}.`);
  }
  const cell = (side: Zone["side"], third: Zone["third"]): HTMLElement => {
    const zone = zones.find((candidate) => candidate.side === side && candidate.third === third);
    const share = zone?.lesion_share_of_lung_percent ?? null;
    return h("td", { class: `zone shade-${shade(share)}` }, share === null ? "unknown" : `${rounded(share)} %`);
  };
  return h(
    "table",
    { class: "zones" },
    h("caption", {}, "Lesion in % of each zone: thirds of each lung’s height"),
    h("thead", {}, h("tr", {}, h("td", {}), h("th", { scope: "col" }, "right"), h("th", { scope: "col" }, "left"))),
    h(
      "tbody",
      {},
      ...(["upper", "middle", "lower"] as const).map((third) =>
        h("tr", {}, h("th", { scope: "row" }, third), cell("right", third), cell("left", third)),
      ),
    ),
  );
}

/** Class of colour: 0 without lesion, then 1 to 4 by quarters, as the report scores them. */
function shade(share: number | null): number {
  return share === null ? 0 : [0, 25, 50, 75].filter((limit) => share > limit).length;
}
