/** The files that the user dropped or chose. */

import type { DroppedFile } from "./grouping";

/** All files of a drop, including those in folders. */
export async function filesOfDrop(transfer: DataTransfer): Promise<DroppedFile[]> {
  // The entries must be read before the first await: the browser empties the transfer after the event.
  const entries = [...transfer.items].flatMap((item) => {
    const entry = item.kind === "file" ? item.webkitGetAsEntry() : null;
    return entry ? [entry] : [];
  });
  const withoutEntry = entries.length ? [] : [...transfer.files];
  const found = await Promise.all(entries.map(filesOfEntry));
  return [...found.flat(), ...withoutEntry.map((file) => ({ path: file.name, file }))];
}

/** All files of a file input; an input for folders gives paths within the folder. */
export function filesOfInput(input: HTMLInputElement): DroppedFile[] {
  return [...(input.files ?? [])].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

async function filesOfEntry(entry: FileSystemEntry): Promise<DroppedFile[]> {
  if (entry.isFile) {
    const file = await new Promise<File>((resolve, reject) => (entry as FileSystemFileEntry).file(resolve, reject));
    return [{ path: entry.fullPath.replace(/^\//, ""), file }];
  }
  const reader = (entry as FileSystemDirectoryEntry).createReader();
  const children: FileSystemEntry[] = [];
  for (;;) {
    // A reader returns at most a hundred entries at a time, and none at its end.
    const batch = await new Promise<FileSystemEntry[]>((resolve, reject) => reader.readEntries(resolve, reject));
    if (batch.length === 0) break;
    children.push(...batch);
  }
  return (await Promise.all(children.map(filesOfEntry))).flat();
}
