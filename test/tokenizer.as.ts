// The tokenizer and sampler alone, for a quick build while working on them.

export * from "../assembly/sampler";
export { status_detail_ptr } from "../assembly/status";
export * from "../assembly/tokenizer";
export { unicode_class, unicode_combining } from "../assembly/unicode";
export { UNICODE_VERSION } from "../assembly/unicode-tables";
