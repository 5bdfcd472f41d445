// What is used of jco: the project's checks do without installing it.

declare module "@bytecodealliance/jco" {
  export function componentEmbed(options: {
    binary: Uint8Array;
    witSource: string;
    worldName: string;
  }): Promise<Uint8Array>;
  export function componentNew(core: Uint8Array, adapters: [name: string, adapter: Uint8Array][]): Promise<Uint8Array>;
  export function preview1AdapterReactorPath(): URL;
  export function transpile(
    component: Uint8Array,
    options: { name: string },
  ): Promise<{ files: Record<string, Uint8Array> }>;
}

declare module "@bytecodealliance/preview2-shim/filesystem" {
  /** Folders as the component sees them, and where they are. */
  export function _setPreopens(preopens: Record<string, string>): void;
}
