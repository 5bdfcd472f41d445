// The fields of a request, each checked as it is read. null is as good as absent, as in OpenAI's API.

import { kindOf } from "./body";
import { wrong } from "./refusal";

export class Fields {
  readonly #values: Readonly<Record<string, unknown>>;
  readonly #prefix: string;

  /** prefix: what stands before a name where a message names it, such as "messages[0].". */
  constructor(values: Readonly<Record<string, unknown>>, prefix = "") {
    this.#values = values;
    this.#prefix = prefix;
  }

  /** The value as it came; undefined where it is absent or null. */
  get(name: string): unknown {
    return Object.hasOwn(this.#values, name) ? (this.#values[name] ?? undefined) : undefined;
  }

  /** How messages call a field. */
  called(name: string): string {
    return this.#prefix + name;
  }

  number(name: string, least: number, most: number): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (typeof value !== "number" || !(value >= least && value <= most))
      throw this.wrong(name, `a number from ${least} to ${most}`);
    return value;
  }

  whole(name: string, least: number, most: number): number | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    if (!Number.isInteger(value) || !((value as number) >= least && (value as number) <= most))
      throw this.wrong(name, `a whole number from ${least} to ${most}`);
    return value as number;
  }

  flag(name: string): boolean | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== "boolean") throw this.wrong(name, "true or false");
    return value;
  }

  text(name: string): string | undefined {
    const value = this.get(name);
    if (value !== undefined && typeof value !== "string") throw this.wrong(name, "a text");
    return value;
  }

  choice<T extends string>(name: string, values: readonly T[]): T | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    const found = values.find((one) => one === value);
    if (found === undefined) throw this.wrong(name, `one of ${values.map((one) => `"${one}"`).join(", ")}`);
    return found;
  }

  object(name: string): Fields | undefined {
    const value = this.get(name);
    if (value === undefined) return undefined;
    return new Fields(objectOf(value, this.called(name)), `${this.called(name)}.`);
  }

  /** What to throw where a field is not what it must be. */
  wrong(name: string, expected: string) {
    const value = this.get(name);
    const got = value === undefined ? "it is missing" : `not ${kindOf(value)}`;
    return wrong(this.called(name), `${this.called(name)} must be ${expected}, ${got}`);
  }
}

/** A value that must be an object. */
export function objectOf(value: unknown, name: string): Readonly<Record<string, unknown>> {
  if (typeof value !== "object" || value === null || Array.isArray(value))
    throw wrong(name, `${name} must be an object, not ${kindOf(value)}`);
  return value as Record<string, unknown>;
}
