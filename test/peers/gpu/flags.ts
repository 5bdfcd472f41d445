// WebGPU's GPUBufferUsage and GPUMapMode: TypeScript's DOM library has their types, but not their values.

export const USAGE = {
  MAP_READ: 0x1,
  COPY_SRC: 0x4,
  COPY_DST: 0x8,
  UNIFORM: 0x40,
  STORAGE: 0x80,
  QUERY_RESOLVE: 0x200,
} as const;

export const MAP = { READ: 0x1 } as const;
