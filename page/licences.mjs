// Write the licences of what the built page contains beside it; `npm run build` runs this.
import { readdirSync, readFileSync, writeFileSync } from "node:fs";

const OUT = "../src/groundglass/apps/service/page/LICENSES.txt";
const lock = JSON.parse(readFileSync("package-lock.json", "utf8"));

/** The packages that the built page contains. */
function bundled() {
  return Object.entries(lock.packages)
    .filter(([path, { dev, peer, optional }]) => path && !dev && !peer && !optional)
    .map(([path, { version, license }]) => ({ path, name: path.split("node_modules/").at(-1), version, license }))
    .sort((a, b) => (a.path < b.path ? -1 : 1));
}

/** The licence file of a package; null if it has none. */
function text(path) {
  const name = readdirSync(path).find((file) => /^(licen[cs]e|copying)/i.test(file));
  return name ? readFileSync(`${path}/${name}`, "utf8").replaceAll("\r\n", "\n").trim() : null;
}

const parts = bundled().map(({ path, name, version, license }) => {
  const rule = "=".repeat(78);
  return `${rule}\n${name} ${version}, ${license}\n${rule}\n\n${text(path) ?? readFileSync(`licences/${name.replace("/", "-")}.txt`, "utf8").trim()}\n`;
});
writeFileSync(OUT, `The page of groundglass contains the following software.\n\n${parts.join("\n")}`);
