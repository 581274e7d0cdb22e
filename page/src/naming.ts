/** Naming a job that the server has just accepted. */

import { api, type Job } from "./api";
import { type Description, describeScan } from "./dialogs";
import { errorText } from "./format";

/**
 * Give a mask that was sent its note, and its name where that is not the one of the scan, which it has already. If that
 * fails the mask is there all the same: they are asked for again, so that neither they are lost nor the mask is sent twice.
 */
export async function describeSent(job: Job, description: Partial<Description>): Promise<Job> {
  for (let wanted: Partial<Description> | null = description; wanted; ) {
    try {
      await api.describe(job.id, wanted);
      return { ...job, ...wanted };
    } catch (error) {
      wanted = await describeScan({
        label: wanted.label ?? job.label,
        note: wanted.note ?? job.note,
        title: "Name and note are not saved",
        text: `The mask itself is saved. ${errorText(error)}`,
        button: "Try again",
      });
    }
  }
  return job;
}
