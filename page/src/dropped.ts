/** Reading what a person dropped or chose. */

import type { Dropped } from "./grouping";

/** Every file of a drop, folders included. */
export async function filesOfDrop(transfer: DataTransfer): Promise<Dropped[]> {
  // The entries must be taken before the first wait: the browser empties the transfer after the event.
  const entries = [...transfer.items].flatMap((item) => {
    const entry = item.kind === "file" ? item.webkitGetAsEntry() : null;
    return entry ? [entry] : [];
  });
  const loose = entries.length ? [] : [...transfer.files];
  const found = await Promise.all(entries.map(filesOfEntry));
  return [...found.flat(), ...loose.map((file) => ({ path: file.name, file }))];
}

/** Every file of a chooser; one for folders gives their paths. */
export function filesOfInput(input: HTMLInputElement): Dropped[] {
  return [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

async function filesOfEntry(entry: FileSystemEntry): Promise<Dropped[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((done, failed) => (entry as FileSystemFileEntry).file(done, failed));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const inside: FileSystemEntry[] = [];
  for (;;) {
    // A reader gives at most a hundred at a time, and none at its end.
    const some = await new Promise<FileSystemEntry[]>((done, failed) => reader.readEntries(done, failed));
    if (some.length === 0) break;
    inside.push(...some);
  }
  return (await Promise.all(inside.map(filesOfEntry))).flat();
}
