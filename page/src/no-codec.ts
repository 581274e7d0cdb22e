/** Replaces the Zarr codecs that NiiVue would load, 1.4 MB of WebAssembly: the page reads NIfTI only. */
export default null;
