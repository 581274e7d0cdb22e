/** Dialogs: questions and short forms; Escape leaves them without an answer. */

import { h } from "./dom";

export interface Question {
  title: string;
  text: string;
  /** The safe answer comes last. */
  answers: { label: string; value: string; danger?: boolean }[];
}

/** Ask a question; the value of the chosen answer, or null where the dialog was closed without one. */
export function question({ title, text, answers }: Question): Promise<string | null> {
  const dialog = h(
    "dialog",
    { "aria-labelledby": "question-title", "aria-describedby": "question-text" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "question-title" }, title),
      h("p", { id: "question-text" }, text),
      h(
        "div",
        { class: "answers" },
        ...answers.map(({ label, value, danger }) =>
          h("button", { value, class: danger ? "danger" : "" }, label),
        ),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  (dialog.querySelector("button:last-of-type") as HTMLElement).focus();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue || null);
    });
  });
}

export interface Description {
  label: string;
  note: string;
}

/** Ask for a name and a note; null where the dialog was closed without them. */
export function describeScan(form: Description & { title: string; text: string; button: string }): Promise<Description | null> {
  const label = h("input", { id: "scan-label", value: form.label, maxlength: 100, required: true });
  const note = h("textarea", { id: "scan-note", rows: 3, maxlength: 2000 }, form.note);
  const dialog = h(
    "dialog",
    { "aria-labelledby": "describe-title" },
    h(
      "form",
      { method: "dialog" },
      h("h2", { id: "describe-title" }, form.title),
      form.text && h("p", {}, form.text),
      h("label", { for: "scan-label" }, "Name"),
      label,
      h("label", { for: "scan-note" }, "Note"),
      note,
      h(
        "div",
        { class: "answers" },
        h("button", { value: "yes", class: "primary" }, form.button),
        h("button", { value: "", formnovalidate: true }, "Cancel"),
      ),
    ),
  );
  document.body.append(dialog);
  dialog.showModal();
  label.select();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      dialog.remove();
      resolve(dialog.returnValue === "yes" ? { label: label.value.trim(), note: note.value.trim() } : null);
    });
  });
}
