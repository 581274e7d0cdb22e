/** The numbers beside the scan: warnings, burden, lesions, the scan itself, its prior, its files. */

import { api, type Findings, type Job, type ViewDescription } from "./api";
import { burdenPanel } from "./burden";
import { announce, h } from "./dom";
import { clock, date, errorText, fileLabel, inOrder, sentence, size } from "./format";
import { lesionList } from "./lesionlist";
import { describeSent } from "./naming";
import { seriesPicker } from "./seriespicker";

const WARNINGS_SHOWN = 2; // of more, the others are folded away

export interface FactHooks {
  /** Go to a lesion of the findings. */
  go: (index: number) => void;
  created: (job: Job) => void;
  others: () => Job[];
}

export function facts(job: Job, findings: Findings, view: ViewDescription, hooks: FactHooks): HTMLElement {
  const { name, sha256 } = findings.model;
  const panels = h(
    "div",
    { class: "facts" },
    warnings(findings),
    burdenPanel(findings, view.uncertainty),
    seriesPicker(job, hooks.created),
    lesionList(findings, hooks.go),
    sentencePanel(view.sentence),
    priorPanel(job, hooks.others()),
    aboutScan(findings, view),
    downloads(job),
    maskPanel(job, hooks.created),
    h(
      "p",
      { class: "note" },
      `${sentence(findings.intensity.reason)} Model ${name} (sha256 ${sha256.slice(0, 12)}), groundglass ${findings.version}. A program marked what looks like COVID-19 lesions: other diseases look alike, and it misses some lesions. Check the slices.`,
    ),
  );
  return h("div", { class: "numbers" }, panels);
}

function warnings(findings: Findings): HTMLElement | null {
  const items = findings.warnings.map((text) => h("li", {}, sentence(text)));
  if (items.length === 0) return null;
  const [shown, folded] = [items.slice(0, WARNINGS_SHOWN), items.slice(WARNINGS_SHOWN)];
  return h(
    "div",
    { class: "warnings", role: "note" },
    h("strong", {}, "Before you use these numbers"),
    h("ul", {}, ...shown),
    folded.length ? h("details", {}, h("summary", {}, `${folded.length} more`), h("ul", {}, ...folded)) : null,
  );
}

/** A sentence for a report, to be copied. */
function sentencePanel(words: string): HTMLElement | null {
  if (!words) return null;
  const text = h("p", { class: "to-copy" }, words);
  const button = h("button", { type: "button", click: () => void copy() }, "Copy");

  async function copy(): Promise<void> {
    getSelection()?.selectAllChildren(text);
    const copied = await copyText(words);
    button.textContent = copied ? "Copied" : "Selected";
    announce(copied ? "The sentence is copied." : "The sentence is selected: copy it by keys.");
  }

  return h(
    "section",
    { class: "panel", "aria-labelledby": "sentence" },
    h("h2", { id: "sentence" }, "For a report ", button),
    text,
  );
}

/** Copy a text; browsers allow it on secure pages alone: on this machine, or by https. */
async function copyText(words: string): Promise<boolean> {
  try {
    await navigator.clipboard.writeText(words);
    return true;
  } catch {
    return document.execCommand("copy");
  }
}

function aboutScan({ input }: Findings, view: ViewDescription): HTMLElement {
  const [dz, dy, dx] = input.spacing_mm ?? [null, null, null];
  const rows: [string, string | null][] = [
    ["Scanned", input.scanned && date(input.scanned)],
    ["Series", input.series],
    ["Description", view.description],
    ["Thickness", input.slice_thickness_mm === null ? null : `${input.slice_thickness_mm} mm`],
    ["Voxels", dz === null ? "of unknown size" : `${mm(dx)} × ${mm(dy)} × ${mm(dz)} mm`],
    ["Kernel", input.kernel],
  ];
  const known = rows.filter((row): row is [string, string] => row[1] !== null);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "about" },
    h("h2", { id: "about" }, "Scan"),
    h("dl", { class: "about" }, ...known.flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])),
  );
}

const mm = (value: number): string => String(Number(value.toFixed(3)));

/** Choose another scan of the patient, to stand beside this one; single slices are not compared. */
function priorPanel(job: Job, others: Job[]): HTMLElement | null {
  const volumes = others.filter(hasVolumeMask);
  if (!hasVolumeMask(job) || volumes.length === 0) return null;
  const list = h(
    "select",
    { "aria-label": "Scan to compare with" },
    ...volumes.map((other) => h("option", { value: other.id }, `${other.label}, ${clock(other.submitted)}`)),
  );
  const compare = h("button", { type: "button", click: () => (location.hash = `${job.id}:${list.value}`) }, "Compare");
  return h(
    "section",
    { class: "panel", "aria-labelledby": "prior" },
    h("h2", { id: "prior" }, "Compare with another scan of this patient"),
    h("div", { class: "answers nowrap" }, list, compare),
  );
}

const hasVolumeMask = (job: Job): boolean => job.files?.some(({ name }) => name === "lesions.nii.gz") ?? false;

function downloads(job: Job): HTMLElement {
  const items = inOrder(job.files ?? []).map(({ name, bytes }) => {
    const path = api.filePath(job.id, name);
    return h(
      "li",
      {},
      h("a", { href: `${path}?download=1`, download: "" }, fileLabel(name)),
      name === "report.html" && h("a", { href: path, target: "_blank", rel: "noopener" }, "open"),
      h("span", { class: "detail" }, size(bytes)),
    );
  });
  return h(
    "section",
    { class: "panel", "aria-labelledby": "downloads" },
    h("h2", { id: "downloads" }, "Downloads"),
    h("ul", { class: "downloads" }, ...items),
  );
}

/** Open a mask that another program or person has made: it is measured like a correction. */
function maskPanel(job: Job, created: (job: Job) => void): HTMLElement {
  const message = h("p", { class: "refused", role: "alert" });
  const input = h("input", { type: "file", id: "open-mask", class: "visually-hidden", accept: ".nii,.gz,.dcm,.mha,.nrrd" });

  async function open(file: File): Promise<void> {
    message.textContent = "";
    try {
      const next = await api.correct(job.id, file, "opened");
      created(await describeSent(next, { note: `mask ${file.name}` }));
    } catch (error) {
      message.textContent = errorText(error);
    }
  }

  input.addEventListener("change", () => {
    const file = input.files?.[0];
    if (file) void open(file);
    input.value = "";
  });
  return h(
    "section",
    { class: "panel", "aria-labelledby": "masks" },
    h("h2", { id: "masks" }, "Another mask"),
    h("p", { class: "note" }, "A DICOM SEG or NIfTI mask of this scan is measured in the same way, and can be corrected."),
    input,
    h("label", { for: "open-mask", class: "button" }, "Open a mask"),
    message,
  );
}
