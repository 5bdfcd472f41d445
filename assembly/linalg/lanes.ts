// Four rows side by side: for recurrences that run along a row, four rows are laid in scratch so that a lane is a row
// and every step is one vector operation for all of them.

/** Copies columns 0 … cols−1 of rows 0 … min(rows, 4)−1 to lanes [cols][4]; missing rows repeat the last one. */
export function lanes_load(src: usize, ld: u32, rows: u32, cols: u32, dst: usize): void {
  const step = (ld as usize) << 2;
  const b = rows > 1 ? src + step : src;
  const c = rows > 2 ? b + step : b;
  const d = rows > 3 ? c + step : c;
  const end = (cols as usize) << 2;
  for (let at: usize = 0; at < end; at += 4) {
    store<f32>(dst, load<f32>(src + at));
    store<f32>(dst, load<f32>(b + at), 4);
    store<f32>(dst, load<f32>(c + at), 8);
    store<f32>(dst, load<f32>(d + at), 12);
    dst += 16;
  }
}

/** The way back; the lanes of missing rows are dropped. */
export function lanes_store(src: usize, rows: u32, cols: u32, dst: usize, ld: u32): void {
  const step = (ld as usize) << 2;
  const end = (cols as usize) << 2;
  for (let at: usize = 0; at < end; at += 4) {
    store<f32>(dst + at, load<f32>(src));
    if (rows > 1) store<f32>(dst + step + at, load<f32>(src, 4));
    if (rows > 2) store<f32>(dst + 2 * step + at, load<f32>(src, 8));
    if (rows > 3) store<f32>(dst + 3 * step + at, load<f32>(src, 12));
    src += 16;
  }
}

/** y[j] += factor·r[j] for j in [0, count): y in lanes [count][4], r f32 [count], one factor a lane. */
export function lanes_add(yPtr: usize, factor: v128, rPtr: usize, count: u32): void {
  const end = rPtr + ((count as usize) << 2);
  while (rPtr < end) {
    v128.store(yPtr, f32x4.add(v128.load(yPtr), f32x4.mul(factor, v128.load32_splat(rPtr))));
    yPtr += 16;
    rPtr += 4;
  }
}
