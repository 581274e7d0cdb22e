/** What is on its way: sent one after another, held back while the queue is full, refused in plain words. */

import { type Job, type Limits, Refusal } from "./api";
import { announce, h } from "./dom";
import { type Parcel, tooLarge } from "./grouping";
import { Cancelled, upload } from "./upload";
import { sentence, size } from "./words";

const PAUSE_S = 10; // where a server that is away or full names none

export class Uploads {
  readonly element = h("section", { class: "uploads", "aria-label": "On the way" });
  private before: Promise<void> = Promise.resolve();

  constructor(
    private readonly limits: () => Limits | null,
    private readonly accepted: (job: Job) => void,
  ) {}

  /** Send scans in turn. */
  send(parcels: Parcel[]): void {
    for (const parcel of parcels) {
      const card = new Card(parcel);
      this.element.append(card.element);
      const limits = this.limits();
      const reason = limits && tooLarge(parcel, limits, size);
      if (reason) card.refuse(reason);
      else this.before = this.before.then(() => this.deliver(parcel, card));
    }
  }

  private async deliver(parcel: Parcel, card: Card): Promise<void> {
    while (!card.cancelled) {
      try {
        const { job, cancel } = upload(parcel, (share) => card.sending(share));
        card.cancel = cancel;
        const taken = await job;
        card.element.remove();
        return this.accepted(taken);
      } catch (error) {
        if (error instanceof Cancelled) return;
        const busy = error instanceof Refusal && [0, 401, 429].includes(error.status);
        if (!busy) return card.refuse(sentence(error instanceof Error ? error.message : String(error)));
        await card.wait(sentence(error.message), error.retryAfter ?? PAUSE_S);
      }
    }
  }
}

/** One parcel's place on the page. */
class Card {
  readonly element: HTMLElement;
  cancelled = false;
  /** Stops what is under way. */
  cancel: () => void = () => {};
  private readonly told = h("p", { class: "told" }, "waits for its turn");
  private readonly progress = h("progress", { max: 100, "aria-label": "Sent" });
  private readonly stop = h("button", { type: "button", click: () => this.dismiss() }, "Cancel");
  private readonly buttons = h("div", { class: "answers" }, this.stop);

  constructor(parcel: Parcel) {
    this.progress.value = 0;
    this.element = h(
      "article",
      { class: "card" },
      h("h2", {}, parcel.label, h("span", { class: "where" }, size(parcel.bytes))),
      this.progress,
      this.told,
      this.buttons,
    );
  }

  private dismiss(): void {
    this.cancelled = true;
    this.cancel();
    this.element.remove();
  }

  sending(share: number): void {
    this.progress.value = 100 * share;
    this.told.textContent = share < 1 ? `sending: ${Math.floor(100 * share)} %` : "sent: the server takes it in";
  }

  refuse(reason: string): void {
    this.progress.remove();
    this.told.textContent = reason;
    this.told.className = "refused";
    this.told.setAttribute("role", "alert");
    this.stop.textContent = "Dismiss";
  }

  /** Count down to another try; "Try now" cuts it short. */
  wait(reason: string, seconds: number): Promise<void> {
    announce(`${reason} Trying again in ${seconds} seconds.`);
    let left = Math.ceil(seconds);
    return new Promise((done) => {
      const now = h("button", { type: "button", click: () => go() }, "Try now");
      const tick = window.setInterval(() => say(--left), 1000);
      const go = (): void => {
        clearInterval(tick);
        now.remove();
        this.sending(0);
        done();
      };
      const say = (remaining: number): void => {
        if (remaining <= 0) return go();
        this.told.textContent = `${reason} Trying again in ${remaining} s.`;
      };
      this.cancel = go;
      this.buttons.prepend(now);
      say(left);
    });
  }
}
