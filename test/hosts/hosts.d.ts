// What is used of the drivers' packages: the project's checks do without installing them.

declare module "playwright-core" {
  interface Browser {
    on(event: "disconnected", handler: () => void): void;
  }
}

declare module "@wasmer/sdk/node" {
  interface Command {
    run(): Promise<{ readonly stdout: { text(): string }; readonly stderr: { text(): string } }>;
  }
  interface Sandbox {
    command(name: string, args: readonly string[]): Command;
  }
  export class Wasmer {
    static create(options: object): Promise<Wasmer>;
    readonly packages: {
      create(content: {
        modules: Record<string, Uint8Array>;
        commands: Record<string, { module: string }>;
        files: Record<string, Uint8Array>;
      }): Promise<unknown>;
    };
    readonly sandboxes: { create(options: { packages: readonly unknown[] }): Promise<Sandbox> };
  }
}
