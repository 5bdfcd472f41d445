/** As in package.json; test/wasi.test.ts compares them. */
export const VERSION: string = "0.7.0";
