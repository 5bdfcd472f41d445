// One worker's share of the calibration text: its windows, their activations in the original and in the packed model,
// and what is summed over them. The sums of all shards together are those of the whole text (shards.ts).

import { type Op, open, Probe, type ProbedScan, type ProbedSublayer } from "../runtime/index";
import { ROLE_EMBEDDING } from "./format";
import { Linalg, type Matrix } from "./linalg";

const STEP_ROWS = 128;
const SCAN_STEP_ROWS = 16; // the state is seen behind each step
/** Shards are threads themselves, and what they measure is the weights. */
const EXACT = { threads: 1, activations: "f32" } as const;

/** Windows of text with their embedded tokens. `level`: which cut of the model a window is run at. */
export interface Windows {
  readonly tokens: number;
  readonly levels: readonly number[];
  /** f32 [windows × tokens, width]: what goes into the first layer of the original and of the packed model. */
  readonly original: Float32Array;
  readonly packed: Float32Array;
}

/** Of an original sublayer. XᵀX are upper triangles, in the order of its pack. */
export interface Statistics {
  /** XᵀX of the normed input, and its sum. */
  readonly inputs: Float32Array;
  readonly inputMean: Float32Array;
  /** XᵀX of what goes into the last matrix. */
  readonly outputs: Float32Array;
  /**
   * Of a scan, one after the other for each of its groups: XᵀX of what each state dimension gives to every dim of a head
   * as it goes into the last matrix. Summed over fewer rows than the rest: only their proportions count. Else empty.
   */
  readonly states: Float32Array;
  /** How many rows the first three are sums of. */
  readonly rows: number;
}

/** Normal equations of W: find W with W·H ≈ R. H [n, n] upper triangle, R [m, n]. */
export interface NormalEquations {
  readonly h: Float32Array;
  readonly r: Float32Array;
}

/** What the cuts are measured on: windows of token ids, and the original model's probabilities of the next tokens. */
export interface Exam {
  readonly path: string;
  readonly windows: readonly Uint32Array[];
  /** f32 [windows × tokens, vocabulary]. */
  readonly reference: Float32Array;
}

/** Sums over an exam's tokens. */
export interface Marks {
  readonly divergence: number;
  readonly tokens: number;
}

interface OpenedExam {
  readonly probe: Probe;
  readonly windows: readonly Uint32Array[];
  readonly reference: Float32Array;
  /** Of the reference, summed over its rows. */
  readonly entropy: number;
  /** The stream before each sublayer [rows, width]: of the accepted cut, and of the one examined last. */
  readonly before: Float32Array[];
  readonly tried: Float32Array[];
  /** The sublayer from which the last one was examined. */
  from: number;
}

export class Shard {
  readonly #linalg: Linalg;
  #windows: Windows | undefined;
  #layers: Partial<Record<"original" | "packed", Probe>> = {};
  #levels: readonly (readonly number[])[] = [];
  /** What goes into the last matrix of the sublayer at hand, step by step. */
  #outputs: Float32Array[] = [];
  #exam: OpenedExam | undefined;

  private constructor(linalg: Linalg) {
    this.#linalg = linalg;
  }

  static async create(): Promise<Shard> {
    return new Shard(await Linalg.load());
  }

  /** Starts again at the first layer with these windows. */
  async begin(windows: Windows): Promise<void> {
    this.#windows = { ...windows, original: windows.original.slice(), packed: windows.packed.slice() };
  }

  /** Loads a layer; `levels[level]` are the units that a window of that level keeps of each of its stacks. */
  async load(which: "original" | "packed", pack: Uint8Array, levels: readonly (readonly number[])[]): Promise<void> {
    const { tokens } = this.#text();
    const opened = await open({
      name: "a layer",
      size: pack.length,
      async read(offset, target) {
        target.set(pack.subarray(offset, offset + target.length));
      },
    });
    const rows = Math.min(STEP_ROWS, tokens);
    const plan = opened.plan({ context: tokens, rows, outputs: rows, ...EXACT });
    this.#layers[which] = new Probe(await opened.load(plan));
    if (which === "packed") this.#levels = levels;
  }

  /** Runs the original layer on and sums what goes into the matrices of each of its sublayers. */
  async statistics(): Promise<Statistics[]> {
    const probe = this.#layer("original");
    const cols = (op: number) => (probe.ops[op] as Op).cols;
    return this.#linalg.scope(() => {
      const sums = probe.sublayers.map(({ first, last }) => ({
        inputs: this.#linalg.zeros(cols(first), cols(first)),
        mean: new Float64Array(cols(first)),
        outputs: this.#linalg.zeros(cols(last), cols(last)),
        states: [] as Matrix[],
      }));
      let rows = 0;
      const stepRows = probe.sublayers.some(({ scan }) => scan !== null) ? SCAN_STEP_ROWS : STEP_ROWS;
      this.#overText(
        "original",
        probe,
        (stream, _, count) => {
          probe.stream().set(stream);
          sums.forEach((sum, i) => {
            const { start, first, scan, last } = probe.sublayers[i] as ProbedSublayer;
            probe.run(start, first);
            const x = probe.input(probe.ops[first] as Op);
            this.#addGram(sum.inputs, x);
            x.forEach((value, at) => {
              sum.mean[at % sum.mean.length] = (sum.mean[at % sum.mean.length] as number) + value;
            });
            probe.run(first, scan === null ? last : scan + 1);
            const scanned = scan === null ? null : probe.scan(scan);
            if (scan !== null) probe.run(scan + 1, last);
            const outputs = probe.input(probe.ops[last] as Op);
            this.#addGram(sum.outputs, outputs);
            if (scanned !== null) this.#addStates(sum.states, scanned, outputs.subarray(-scanned.out.length));
            probe.run(last, last + 1);
          });
          stream.set(probe.stream());
          rows += count;
        },
        stepRows,
      );
      return sums.map(({ inputs, mean, outputs, states }) => ({
        inputs: this.#linalg.get(inputs),
        inputMean: Float32Array.from(mean),
        outputs: this.#linalg.get(outputs),
        states: joined(states.map((each) => this.#linalg.get(each))),
        rows,
      }));
    });
  }

  /**
   * Behind the last original layer: XᵀX of what goes into the head, and X itself for the first `tokens` of each of the
   * first `windows` windows.
   */
  async headStatistics(windows: number, tokens: number): Promise<{ gram: Float32Array; kept: Float32Array }> {
    const probe = this.#layer("original");
    const head = find(probe, ROLE_EMBEDDING);
    const after = lastOf(probe) + 1;
    const { width } = probe;
    const kept = new Float32Array(windows * tokens * width);
    return this.#linalg.scope(() => {
      const gram = this.#linalg.zeros(width, width);
      this.#overText("original", probe, (stream, _, rows, window, at) => {
        probe.stream().set(stream);
        probe.run(after, head);
        const x = probe.input(probe.ops[head] as Op);
        this.#addGram(gram, x);
        const wanted = Math.min(rows, tokens - at);
        if (window < windows && wanted > 0) kept.set(x.subarray(0, wanted * width), (window * tokens + at) * width);
      });
      return { gram: this.#linalg.get(gram), kept };
    });
  }

  /**
   * What goes into the first matrices of a sublayer: in the packed model (c), and in the original (f). H = Σ c·cᵀ,
   * R = Σ f·cᵀ. Then runs the original through the sublayer.
   */
  async inputs(sublayer: number): Promise<NormalEquations> {
    const probe = this.#layer("original");
    const { start, first, last } = probe.sublayers[sublayer] as ProbedSublayer;
    const op = probe.ops[first] as Op;
    return this.#linalg.scope(() => {
      const h = this.#linalg.zeros(op.cols, op.cols);
      const r = this.#linalg.zeros(op.cols, op.cols);
      this.#overText("original", probe, (original, packed, count) => {
        probe.stream().set(packed);
        probe.run(start, first);
        const ofPacked = probe.input(op).slice();
        probe.stream().set(original);
        probe.run(start, first);
        this.#addNormal(h, r, ofPacked, probe.input(op), count);
        probe.run(first, last + 1);
        original.set(probe.stream());
      });
      return { h: this.#linalg.get(h), r: this.#linalg.get(r) };
    });
  }

  /**
   * What goes into the last matrix of a sublayer in the packed model (c), each window at its level's cut, and what that
   * matrix should add to reach the original's stream (t). H = Σ c·cᵀ, R = Σ t·cᵀ. `cols`: of the uncut matrix.
   */
  async outputs(sublayer: number, cols: number): Promise<NormalEquations> {
    const probe = this.#layer("packed");
    const { width } = probe;
    return this.#linalg.scope(() => {
      const h = this.#linalg.zeros(cols, cols);
      const r = this.#linalg.zeros(width, cols);
      this.#overText("packed", probe, (original, packed, count) => {
        const { start, last } = probe.sublayers[sublayer] as ProbedSublayer;
        const op = probe.ops[last] as Op;
        probe.stream().set(packed);
        probe.run(start, last);
        const kept = probe.input(op).slice();
        this.#outputs.push(kept);
        const full = new Float32Array(count * cols);
        for (let row = 0; row < count; row++) full.set(kept.subarray(row * op.cols, (row + 1) * op.cols), row * cols);
        this.#addNormal(
          h,
          r,
          full,
          original.map((value, i) => value - (packed[i] as number)),
          count,
        );
      });
      return { h: this.#linalg.get(h), r: this.#linalg.get(r) };
    });
  }

  /** Runs the packed model through the last matrix of a sublayer, on what outputs() saw go into it. */
  async advance(sublayer: number): Promise<void> {
    const probe = this.#layer("packed");
    const inputs = this.#outputs.values();
    this.#outputs = [];
    this.#overText("packed", probe, (_, packed) => {
      const { last } = probe.sublayers[sublayer] as ProbedSublayer;
      probe.stream().set(packed);
      probe.input(probe.ops[last] as Op).set(inputs.next().value as Float32Array);
      probe.run(last, last + 1);
      packed.set(probe.stream());
    });
  }

  /** Opens the model to be examined, whole. */
  async openExam({ path, windows, reference }: Exam): Promise<void> {
    const pack = await open(path);
    const context = Math.max(1, ...windows.map(({ length }) => length));
    const rows = Math.min(STEP_ROWS, context);
    const probe = new Probe(await pack.load(pack.plan({ context, rows, outputs: rows, ...EXACT })));
    await pack.close();
    const sublayers = probe.sublayers.length;
    const floats = windows.reduce((sum, window) => sum + window.length, 0) * probe.width;
    const streams = () => Array.from({ length: reference.length > 0 ? sublayers : 0 }, () => new Float32Array(floats));
    this.#exam = {
      probe,
      windows,
      reference,
      entropy: entropyOf(reference),
      before: streams(),
      tried: streams(),
      from: 0,
    };
  }

  /**
   * Examines the model cut to `kept` units of each stack, none to nothing, from a sublayer on: what comes before is as at
   * the last accept(), or the whole model from its start. Returns Σ KL(original ‖ cut).
   */
  async examine(kept: readonly number[], sublayer: number): Promise<Marks> {
    const exam = this.#openedExam();
    const { probe, before, tried, reference } = exam;
    probe.narrow(kept);
    exam.from = sublayer;
    const vocabulary = probe.vocabulary;
    let divergence = -exam.entropy;
    let row = 0;
    for (const window of exam.windows)
      for (let at = 0; at < window.length; at += STEP_ROWS) {
        const ids = window.subarray(at, at + STEP_ROWS);
        const own = (stream: Float32Array) => stream.subarray(row * probe.width, (row + ids.length) * probe.width);
        probe.begin(ids, at, true);
        if (exam.from === 0) probe.embed();
        else probe.stream().set(own(before[exam.from] as Float32Array));
        for (let index = exam.from; index < tried.length; index++) {
          own(tried[index] as Float32Array).set(probe.stream());
          const { start } = probe.sublayers[index] as ProbedSublayer;
          probe.run(start, probe.sublayers[index + 1]?.start ?? probe.ops.length);
        }
        for (let i = 0; i < ids.length; i++) {
          const from = (row + i) * vocabulary;
          divergence += crossEntropy(probe.logits(i), reference.subarray(from, from + vocabulary));
        }
        row += ids.length;
      }
    return { divergence, tokens: row };
  }

  /** Makes the cut that was examined last the one from which others are examined. */
  async accept(): Promise<void> {
    const exam = this.#openedExam();
    for (let index = exam.from; index < exam.before.length; index++) {
      const examined = exam.tried[index] as Float32Array;
      exam.tried[index] = exam.before[index] as Float32Array;
      exam.before[index] = examined;
    }
  }

  /** Sum of −ln p of each window's tokens after the first, and how many were the likeliest, at the cut `kept`. */
  async score(kept: readonly number[]): Promise<{ loss: number; likeliest: number; tokens: number }> {
    const { probe, windows } = this.#openedExam();
    probe.narrow(kept);
    const sum = { loss: 0, likeliest: 0, tokens: 0 };
    for (const window of windows)
      for (let at = 0; at < window.length; at += STEP_ROWS) {
        const ids = window.subarray(at, at + STEP_ROWS);
        probe.begin(ids, at, true);
        probe.run(0, probe.ops.length);
        for (let i = 0; i < ids.length && at + i + 1 < window.length; i++) {
          const { loss, likeliest } = probe.score(i, window[at + i + 1] as number);
          sum.loss += loss;
          sum.likeliest += likeliest ? 1 : 0;
          sum.tokens++;
        }
      }
    return sum;
  }

  #text(): Windows {
    if (this.#windows === undefined) throw new Error("begin() comes first");
    return this.#windows;
  }

  #layer(which: "original" | "packed"): Probe {
    const probe = this.#layers[which];
    if (probe === undefined) throw new Error("load() comes first");
    return probe;
  }

  #openedExam() {
    if (this.#exam === undefined) throw new Error("openExam() comes first");
    return this.#exam;
  }

  /** Visits the text in steps, with the rows begun: windows of one level after the other, each cut to its level. */
  #overText(
    which: "original" | "packed",
    probe: Probe,
    visit: (original: Float32Array, packed: Float32Array, rows: number, window: number, at: number) => void,
    stepRows = STEP_ROWS,
  ): void {
    const { tokens, levels, original, packed } = this.#text();
    const ids = new Uint32Array(stepRows);
    for (const level of which === "packed" ? new Set(levels) : [-1]) {
      if (which === "packed") probe.narrow(this.#levels[level] as readonly number[]);
      levels.forEach((own, window) => {
        if (level !== -1 && own !== level) return;
        for (let at = 0; at < tokens; at += stepRows) {
          const rows = Math.min(stepRows, tokens - at);
          const from = (window * tokens + at) * probe.width;
          const end = from + rows * probe.width;
          probe.begin(ids.subarray(0, rows), at, which === "original");
          visit(original.subarray(from, end), packed.subarray(from, end), rows, window, at);
        }
      });
    }
  }

  #addGram(sum: Matrix, x: Float32Array): void {
    this.#linalg.scope(() => this.#linalg.gramAdd(sum, this.#linalg.put(x, x.length / sum.cols, sum.cols)));
  }

  /** Adds one row's XᵀX of each group; `gated`: the scan's output as it goes into the last matrix. */
  #addStates(sums: Matrix[], { heads, groups, channels, out, c, h }: ProbedScan, gated: Float32Array): void {
    const state = c.length / groups;
    const share = heads / groups;
    for (let group = 0; group < groups; group++) {
      sums[group] ??= this.#linalg.zeros(state, state);
      const given = new Float32Array((out.length / groups) * state);
      let at = 0;
      for (let dim = 0; dim < out.length; dim++) {
        if (Math.floor((Math.floor(dim / channels) % heads) / share) !== group) continue;
        const passed = out[dim] === 0 ? 0 : (gated[dim] as number) / (out[dim] as number);
        for (let n = 0; n < state; n++, at++)
          given[at] = passed * (c[group * state + n] as number) * (h[dim * state + n] as number);
      }
      this.#addGram(sums[group] as Matrix, given);
    }
  }

  /** h += xᵀx, r += tᵀx. */
  #addNormal(h: Matrix, r: Matrix, x: Float32Array, t: Float32Array, rows: number): void {
    this.#linalg.scope(() => {
      const inputs = this.#linalg.put(x, rows, h.cols);
      this.#linalg.gramAdd(h, inputs);
      this.#linalg.multiply(r, this.#linalg.put(t, rows, r.rows), inputs, { transposeA: true, mode: "add" });
    });
  }
}

function find(probe: Probe, role: number): number {
  return probe.ops.findIndex((op) => op.role === role);
}

/** The op that ends the last sublayer. */
function lastOf(probe: Probe): number {
  return (probe.sublayers.at(-1) as ProbedSublayer).last;
}

function joined(parts: readonly Float32Array[]): Float32Array {
  const out = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => {
    out.set(part, at);
    return at + part.length;
  }, 0);
  return out;
}

/** Σ −p·ln p over all rows together. */
function entropyOf(reference: Float32Array): number {
  let entropy = 0;
  for (const p of reference) if (p > 0) entropy -= p * Math.log(p);
  return entropy;
}

/** −Σ p·ln softmax(logits) of one row. */
function crossEntropy(logits: Float32Array, p: Float32Array): number {
  let most = -Infinity;
  for (let i = 0; i < logits.length; i++) most = Math.max(most, logits[i] as number);
  let sum = 0;
  let expected = 0;
  for (let i = 0; i < logits.length; i++) {
    const logit = (logits[i] as number) - most;
    sum += Math.exp(logit);
    expected += (p[i] as number) * logit;
  }
  return Math.log(sum) - expected;
}
