/** Grouping of dropped files into scans, one upload for each. */

export interface DroppedFile {
  /** Path from the folder that was dropped. */
  path: string;
  file: File;
}

export interface ScanFiles {
  label: string;
  files: DroppedFile[];
  bytes: number;
}

const VOLUME = /\.(nii|nii\.gz|mha|nrrd|zip)$/i;
const IMAGE = /\.(png|jpe?g)$/i;

/** A volume or an archive is a scan of its own; of the other files, each folder is one, and so are all loose images. */
export function groupIntoScans(dropped: DroppedFile[]): ScanFiles[] {
  const groups = new Map<string, DroppedFile[]>();
  for (const item of dropped) {
    const parts = item.path.split("/");
    if (parts.some((part) => part.startsWith(".") || part === "__MACOSX") || item.file.size === 0) continue;
    const folder = parts.length > 1 ? `folder ${parts[0]}` : IMAGE.test(item.path) ? "images" : "files";
    const key = VOLUME.test(item.path) ? `volume ${item.path}` : folder;
    groups.set(key, [...(groups.get(key) ?? []), item]);
  }
  return [...groups.values()].map((files) => ({
    label: files.length === 1 ? (files[0]?.path.split("/").at(-1) ?? "") : `${files.length} files`,
    files,
    bytes: files.reduce((sum, { file }) => sum + file.size, 0),
  }));
}

/** Why the server would refuse a scan as too large; null if it would not. */
export function tooLarge(
  scan: { files: ArrayLike<unknown>; bytes: number },
  limits: { upload_bytes: number; upload_files: number },
  size: (bytes: number) => string,
): string | null {
  if (scan.bytes > limits.upload_bytes) {
    return `It has ${size(scan.bytes)}, and this server accepts up to ${size(limits.upload_bytes)}. Crop it to the chest, or compress it as .nii.gz.`;
  }
  if (scan.files.length > limits.upload_files) {
    return `It has ${scan.files.length} files, and this server accepts up to ${limits.upload_files}. Drop the folder of a single series.`;
  }
  return null;
}
