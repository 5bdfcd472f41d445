// What is used of the package: the project's checks do without installing it.

declare module "webgpu" {
  export const globals: object;
  export function create(options: readonly string[]): GPU;
}
