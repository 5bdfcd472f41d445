// The rows of a step, as gpu/step.ts writes them.
// step[0]: rows, outputs, runs, sequences; step[1]: where the lists begin: rows, runs, sequences, tiles;
// step[2]: where the list of outputs begins; how many tokens argmax.wgsl has fed; what candidates.wgsl is to find; where the
// cache's blocks are listed.
// A row: token, position, sequence, wants logits. A run: sequence, first row, rows, position of the first.
// A sequence, an output: its number, and the row's, in .x. A tile: first row, rows, sequence, position of the first.
fn step_rows() -> u32 { return step[0].x; }
fn step_outputs() -> u32 { return step[0].y; }
fn step_row(t: u32) -> vec4<u32> { return step[step[1].x + t]; }
fn step_run(i: u32) -> vec4<u32> { return step[step[1].y + i]; }
fn step_sequence(i: u32) -> u32 { return step[step[1].z + i].x; }
fn step_tile(i: u32) -> vec4<u32> { return step[step[1].w + i]; }
fn step_output(i: u32) -> u32 { return step[step[2].x + i].x; }
// Where the places of a sequence's blocks (assembly/kv-cache.ts) begin, four at a time; positions: that it has room for.
fn step_table(sequence: u32, positions: u32) -> u32 { return step[2].w + sequence * ((positions + 127u) / 128u); }
// The place of the block that a position is in.
fn step_place(sequence: u32, position: u32, positions: u32) -> u32 {
  return step[step_table(sequence, positions) + position / 128u][position / 32u % 4u];
}
