/** The uploads: sent one after another, held back while the queue is full, with the reason where one is refused. */

import { type Job, type Limits, RequestError } from "./api";
import { announce, h } from "./dom";
import { type ScanFiles, tooLarge } from "./grouping";
import { Cancelled, upload } from "./upload";
import { errorText, sentence, size } from "./format";

const DEFAULT_PAUSE_S = 10; // where the server does not answer or names none

export class Uploads {
  readonly element = h("section", { class: "uploads", "aria-label": "Uploads" });
  private previous: Promise<void> = Promise.resolve();
  /** The cards of the scans that are sent or wait for it. */
  private readonly waiting = new Set<Card>();

  constructor(
    private readonly limits: () => Limits | null,
    private readonly accepted: (job: Job) => void,
  ) {}

  /** Whether a scan is being sent or waits for it. */
  get isBusy(): boolean {
    return this.waiting.size > 0;
  }

  /** Cancel all that is not sent yet. */
  cancel(): void {
    for (const card of this.waiting) card.dismiss();
  }

  /** Send scans one after another. */
  send(scans: ScanFiles[]): void {
    for (const scan of scans) {
      const card = new Card(scan);
      this.element.append(card.element);
      const limits = this.limits();
      const reason = limits && tooLarge(scan, limits, size);
      if (reason) {
        card.refuse(reason);
        continue;
      }
      this.waiting.add(card);
      this.previous = this.previous.then(() => this.deliver(scan, card)).finally(() => this.waiting.delete(card));
    }
  }

  /** Say why nothing was sent of a drop. */
  refuse(reason: string): void {
    const card = new Card({ label: "No scan", files: [], bytes: 0 });
    this.element.append(card.element);
    card.refuse(reason);
  }

  private async deliver(scan: ScanFiles, card: Card): Promise<void> {
    while (!card.cancelled) {
      try {
        const { job, cancel } = upload(scan, (share) => card.sending(share));
        card.cancel = cancel;
        const accepted = await job;
        card.element.remove();
        return this.accepted(accepted);
      } catch (error) {
        if (error instanceof Cancelled) return;
        const retry = error instanceof RequestError && [0, 401, 429].includes(error.status);
        if (!retry) return card.refuse(errorText(error));
        await card.wait(sentence(error.message), error.retryAfter_s ?? DEFAULT_PAUSE_S);
      }
    }
  }
}

/** The card of one upload. */
class Card {
  readonly element: HTMLElement;
  cancelled = false;
  /** Stops the transfer, or the waiting for the next try. */
  cancel: () => void = () => {};
  private readonly status = h("p", {}, "waiting for its turn");
  private readonly progress = h("progress", { max: 100, "aria-label": "Sent" });
  private readonly stop = h("button", { type: "button", click: () => this.dismiss() }, "Cancel");
  private readonly buttons = h("div", { class: "answers" }, this.stop);

  constructor(scan: ScanFiles) {
    this.progress.value = 0;
    this.element = h(
      "article",
      { class: "card" },
      h("h2", {}, scan.label, scan.bytes ? h("span", { class: "detail" }, size(scan.bytes)) : null),
      this.progress,
      this.status,
      this.buttons,
    );
  }

  dismiss(): void {
    this.cancelled = true;
    this.cancel();
    this.element.remove();
  }

  sending(share: number): void {
    this.progress.value = 100 * share;
    this.status.textContent = share < 1 ? `sending: ${Math.floor(100 * share)} %` : "sent: waiting for the server";
  }

  refuse(reason: string): void {
    this.progress.remove();
    this.status.textContent = reason;
    this.status.className = "refused";
    this.status.setAttribute("role", "alert");
    this.stop.textContent = "Dismiss";
  }

  /** Count down to the next try, which "Try now" starts at once. */
  wait(reason: string, seconds: number): Promise<void> {
    announce(`${reason} Trying again in ${seconds} seconds.`);
    let left_s = Math.ceil(seconds);
    return new Promise((resolve) => {
      const tryNow = h("button", { type: "button", click: () => retry() }, "Try now");
      const timer = window.setInterval(() => show(--left_s), 1000);
      const retry = (): void => {
        clearInterval(timer);
        tryNow.remove();
        this.sending(0);
        resolve();
      };
      const show = (remaining: number): void => {
        if (remaining <= 0) return retry();
        this.status.textContent = `${reason} Trying again in ${remaining} s.`;
      };
      this.cancel = retry;
      this.buttons.prepend(tryNow);
      show(left_s);
    });
  }
}
