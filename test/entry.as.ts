// The core's insides that tests call, beside what assembly/index.ts exports. One line for each module.

export * from "../assembly/sampler";
export * from "../assembly/tokenizer";
export { unicode_class, unicode_combining } from "../assembly/unicode";
export { UNICODE_VERSION } from "../assembly/unicode-tables";
