/** The burden beside the scan: by lung and by zone, with the reasons for unknown values. */

import type { Findings, Zone } from "./api";
import { h } from "./dom";
import { rounded, sentence, unknownBurden } from "./format";

export function burdenPanel(findings: Findings): HTMLElement {
  const share = findings.lesion_share_of_lung_percent;
  const volume = findings.lesion_volume_ml;
  const shareUnit = findings.input.kind === "pictures" ? "% of the lung’s area" : "% of the lung";
  return h(
    "section",
    { class: "panel", "aria-labelledby": "burden" },
    h("h2", { id: "burden" }, "Burden"),
    h(
      "p",
      { class: "burden" },
      h("span", { class: "figure" }, h("strong", {}, rounded(share)), " ", share === null ? "share" : shareUnit),
      h("span", { class: "figure" }, h("strong", {}, rounded(volume)), " ", volume === null ? "volume" : "ml of lesion"),
    ),
    lungTable(findings),
    ...unknownBurden(findings).map((reason) => h("p", { class: "note" }, sentence(reason))),
    zoneMap(findings),
  );
}

function lungTable(findings: Findings): HTMLElement {
  const rows = [
    ["right lung", findings.right_lung],
    ["left lung", findings.left_lung],
    ["both lungs", findings],
  ] as const;
  return h(
    "table",
    {},
    h("caption", { class: "visually-hidden" }, "Burden by lung"),
    h("thead", {}, row("th", ["", "lesion, %", "lesion, ml", "lung, ml"])),
    h(
      "tbody",
      {},
      ...rows.map(([name, burden]) =>
        row("td", [
          name,
          rounded(burden.lesion_share_of_lung_percent),
          rounded(burden.lesion_volume_ml),
          rounded(burden.lung_volume_ml, 0),
        ]),
      ),
    ),
  );
}

function row(cell: "th" | "td", texts: string[]): HTMLElement {
  return h(
    "tr",
    {},
    ...texts.map((text, i) =>
      i === 0 && cell === "td" ? h("th", { scope: "row" }, text) : h(cell, cell === "th" ? { scope: "col" } : {}, text),
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
    return h("td", { class: `zone shade-${shade(share)}` }, share === null ? "unknown" : `${share.toFixed(1)} %`);
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
