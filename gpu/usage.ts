// Flags of the WebGPU specification. Node's binding has them in an object of its own, not as globals.

export const BUFFER_MAP_READ = 0x1;
export const BUFFER_COPY_SRC = 0x4;
export const BUFFER_COPY_DST = 0x8;
export const BUFFER_UNIFORM = 0x40;
export const BUFFER_STORAGE = 0x80;
export const BUFFER_QUERY_RESOLVE = 0x200;
export const MAP_READ = 0x1;
