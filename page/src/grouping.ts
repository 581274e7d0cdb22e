/** What was dropped -> scans: one upload for each. */

export interface Dropped {
  /** With the folders it lay in, from the one that was dropped. */
  path: string;
  file: File;
}

export interface Parcel {
  label: string;
  files: Dropped[];
  bytes: number;
}

const VOLUME = /\.(nii|nii\.gz|mha|nrrd|zip)$/i;
const PICTURE = /\.(png|jpe?g)$/i;

/** A volume or an archive is a scan of its own; of the rest, each folder is one, and so are loose pictures. */
export function parcels(dropped: Dropped[]): Parcel[] {
  const groups = new Map<string, Dropped[]>();
  for (const each of dropped) {
    const parts = each.path.split("/");
    if (parts.some((part) => part.startsWith(".") || part === "__MACOSX") || each.file.size === 0) continue;
    const folder = parts.length > 1 ? `folder ${parts[0]}` : PICTURE.test(each.path) ? "pictures" : "files";
    const key = VOLUME.test(each.path) ? `volume ${each.path}` : folder;
    groups.set(key, [...(groups.get(key) ?? []), each]);
  }
  return [...groups.values()].map((files) => ({
    label: files.length === 1 ? (files[0]?.path.split("/").at(-1) ?? "") : `${files.length} files`,
    files,
    bytes: files.reduce((sum, each) => sum + each.file.size, 0),
  }));
}

/** Why a parcel would be refused, before anything is sent; null where it fits. */
export function tooLarge(
  parcel: { files: ArrayLike<unknown>; bytes: number },
  limits: { upload_bytes: number; upload_files: number },
  size: (bytes: number) => string,
): string | null {
  if (parcel.bytes > limits.upload_bytes) {
    return `It holds ${size(parcel.bytes)}, and this server takes up to ${size(limits.upload_bytes)}. Cut it to the chest, or pack it as .nii.gz.`;
  }
  if (parcel.files.length > limits.upload_files) {
    return `It holds ${parcel.files.length} files, and this server takes up to ${limits.upload_files}. Drop the folder of one series.`;
  }
  return null;
}
