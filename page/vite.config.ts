import { defineConfig } from "vite";

export default defineConfig({
  base: "./",
  resolve: { alias: [{ find: /^numcodecs\/.*/, replacement: new URL("src/no-codec.ts", import.meta.url).pathname }] },
  build: {
    outDir: "../src/groundglass/apps/service/page",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    target: "es2022",
    chunkSizeWarningLimit: 1200,
  },
  server: { proxy: { "/api": "http://127.0.0.1:8642" } },
});
