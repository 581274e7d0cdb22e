/** Stands for the Zarr codecs that NiiVue would load: the page reads NIfTI alone, and they are WebAssembly of 1.4 MB. */
export default null;
