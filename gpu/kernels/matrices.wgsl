// What a product works on. Where its matrices lie: up to three with the same input, dtype and shape of panels along it.
// AXIS_ROWS: panels are stacked along the output; otherwise along the input, and their products are added.
struct Matrix {
  weights: u32, // vectors into the binding
  rows: u32, // of a panel
  panels: u32,
  panel_vectors: u32,
  bias: u32, // floats into the bias's binding, or NO_BIAS
  bias_floats: u32, // from panel to panel, where panels are rows
  out_stride: u32,
  out: u32, // floats into its binding
  @size(16) first_tile: u32, // of all matrices' tiles
}
const NO_BIAS = 0xffffffffu;

struct Params {
  cols: u32, // of a panel
  group: u32,
  tile_vectors: u32, // from tile to tile
  input_cols: u32, // of all panels
  first_col: u32, // of the input
  row_floats: u32, // of the input, from row to row; columns, where it is coded
  scales: u32, // where they begin in the codes' binding, in words
  tiles: u32, // of all matrices; of the first, where GATED
  norm_weight: u32, // floats into its binding
  eps: f32,
  @align(16) matrices: array<Matrix, 3>,
}

// A tile of 16 rows of one of the matrices.
struct Tile {
  matrix: u32,
  weights: u32, // vectors into the binding, of the first panel along the input
  row: u32, // first row of the output
  rows: u32, // that are there
  bias: u32, // of the first row, or NO_BIAS
  out: u32, // of the first row
}

fn tile_of(index: u32) -> Tile {
  var m = 0u;
  for (var i = 1u; i < MATRICES; i++) {
    if (index >= params.matrices[i].first_tile) { m = i; }
  }
  let matrix = params.matrices[m];
  let panel_tiles = (matrix.rows + 15u) / 16u;
  let t = index - matrix.first_tile;
  var tile: Tile;
  tile.matrix = m;
  var panel = 0u;
  var in_panel = t;
  if (AXIS_ROWS) {
    panel = t / panel_tiles;
    in_panel = t % panel_tiles;
  }
  tile.weights = matrix.weights + panel * matrix.panel_vectors + in_panel * params.tile_vectors;
  tile.row = panel * matrix.rows + in_panel * 16u;
  tile.out = matrix.out + tile.row;
  tile.rows = min(16u, matrix.rows - in_panel * 16u);
  tile.bias = select(matrix.bias + panel * matrix.bias_floats + in_panel * 16u, NO_BIAS, matrix.bias == NO_BIAS);
  return tile;
}
