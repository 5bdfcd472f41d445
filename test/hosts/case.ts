// One thing that every host must say the same about: a pack, a plan, a prompt, and the ids that follow. No host's own
// names appear here: a page runs this file too.

import type { Plan, PlanOptions } from "../../runtime/plan";

export interface Case {
  readonly name: string;
  /** Where the pack is, in the words of the host. */
  readonly pack: string;
  readonly plan: Pick<PlanOptions, "memory" | "pruning" | "context" | "activations">;
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  /** The likeliest id at each step, without a penalty for repeating. */
  readonly tokens: readonly number[];
  /** Units that the plan must keep. */
  readonly keptUnits: number;
}

/** What a host made of a case. */
export interface Result {
  readonly name: string;
  readonly tokens?: readonly number[];
  /** Absent where the host does not say. */
  readonly keptUnits?: number;
  readonly threads?: number;
  /** Why there are no tokens. */
  readonly error?: string;
}

export interface HostRun {
  /** Engine, version, and the build of the core. */
  readonly about: string;
  readonly results: readonly Result[];
}

/** What this suite uses of a pack, here or at the other end of a port. */
interface OpenPack<Model> {
  readonly build: { readonly simd: string };
  plan(options: PlanOptions): Plan | Promise<Plan>;
  load(plan: Plan): Promise<Model>;
  close(): Promise<void>;
}

interface LoadedModel {
  readonly plan: Plan;
  generate(
    prompt: readonly number[],
    options: { maxTokens: number; temperature: number; repeatPenalty: number },
  ): { result(): Promise<{ readonly tokens: readonly number[] }> };
  dispose(): void | Promise<void>;
}

/**
 * Runs cases one after another; those of one pack open it once. `ready` is awaited before a model is used. Nothing
 * rejects: what fails is in the results.
 */
export async function runCases<Model extends LoadedModel>(
  open: (location: string) => Promise<OpenPack<Model>>,
  cases: readonly Case[],
  threads: number,
  ready: (model: Model) => Promise<void> = async () => {},
): Promise<{ simd: string; results: Result[] }> {
  let simd = "no build";
  const results: Result[] = [];
  for (const location of new Set(cases.map(({ pack }) => pack))) {
    const own = cases.filter(({ pack }) => pack === location);
    try {
      const pack = await open(location);
      simd = pack.build.simd;
      for (const one of own) {
        const result = await runCase(pack, one, threads, ready).catch((error) => ({
          name: one.name,
          error: say(error),
        }));
        results.push(result);
      }
      await pack.close();
    } catch (error) {
      const missing = own.filter(({ name }) => !results.some((result) => result.name === name));
      results.push(...missing.map(({ name }) => ({ name, error: say(error) })));
    }
  }
  return { simd, results };
}

async function runCase<Model extends LoadedModel>(
  pack: OpenPack<Model>,
  { name, plan: options, prompt, maxTokens }: Case,
  threads: number,
  ready: (model: Model) => Promise<void>,
): Promise<Result> {
  const model = await pack.load(await pack.plan({ ...options, threads }));
  try {
    await ready(model);
    const { tokens } = await model.generate(prompt, { maxTokens, temperature: 0, repeatPenalty: 1 }).result();
    return { name, tokens, keptUnits: model.plan.keptUnits, threads: model.plan.threads };
  } finally {
    await model.dispose();
  }
}

function say(error: unknown): string {
  return error instanceof Error ? `${error.name}: ${error.message}` : String(error);
}

/** What is wrong with a result, or undefined. `threads`: how many the host must have used, where it says. */
export function faultOf(one: Case, result: Result | undefined, threads: number): string | undefined {
  if (result === undefined) return "was not run";
  if (result.tokens === undefined) return result.error ?? "made no tokens and gives no reason";
  const { tokens } = result;
  const at = one.tokens.findIndex((token, i) => token !== tokens[i]);
  if (at >= 0) return `token ${at} is ${tokens[at] ?? "missing"} instead of ${one.tokens[at]}`;
  if (tokens.length !== one.tokens.length) return `${tokens.length} tokens instead of ${one.tokens.length}`;
  if (result.keptUnits !== undefined && result.keptUnits !== one.keptUnits)
    return `${result.keptUnits} units kept instead of ${one.keptUnits}`;
  if (result.threads !== undefined && result.threads !== threads)
    return `${result.threads} threads instead of ${threads}`;
  return undefined;
}
