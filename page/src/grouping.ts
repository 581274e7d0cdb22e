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
/** What lies on a CD beside the scan: programs, their parts, and texts. */
const BESIDE =
  /\.(exe|dll|com|bat|cmd|msi|cab|jar|app|so|dylib|sys|ocx|inf|ini|cfg|config|xml|json|html?|css|js|txt|rtf|pdf|docx?|chm|hlp|ico|icns|bmp|gif|lnk|url|db|log|plist|manifest|sh|md5|sha1|sha256)$/i;

/**
 * A volume or an archive is a scan of its own; of the other files, each folder is one, and so are all loose images. What
 * was copied from a CD is one scan, with all its folders: a file DICOMDIR names them.
 */
export function groupIntoScans(dropped: DroppedFile[]): ScanFiles[] {
  const groups = new Map<string, { label: string; files: DroppedFile[] }>();
  const discs = dropped.flatMap(({ path }) => (/(^|\/)DICOMDIR$/i.test(path) ? [path.slice(0, -"DICOMDIR".length)] : []));
  for (const item of dropped) {
    const parts = item.path.split("/");
    if (parts.some((part) => part.startsWith(".") || part === "__MACOSX") || item.file.size === 0) continue;
    const disc = discs.find((folder) => item.path.startsWith(folder));
    if (BESIDE.test(item.path) && dropped.length > 1) continue;
    if (disc !== undefined && (IMAGE.test(item.path) || /(^|\/)DICOMDIR$/i.test(item.path))) continue;
    const name = parts.length > 1 ? parts[0]! : "";
    const folder = name ? `folder ${name}` : IMAGE.test(item.path) ? "images" : "files";
    const key = disc !== undefined ? `disc ${disc}` : VOLUME.test(item.path) ? `volume ${item.path}` : folder;
    const label = disc === "" ? "disc" : name;
    groups.set(key, { label, files: [...(groups.get(key)?.files ?? []), item] });
  }
  return [...groups.values()].map(({ label, files }) => ({
    label: files.length === 1 ? (files[0]?.path.split("/").at(-1) ?? "") : label || `${files.length} ${files.every(({ path }) => IMAGE.test(path)) ? "images" : "files"}`,
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
