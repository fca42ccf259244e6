// Products of matrices in WebAssembly with four numbers at a time, written out here instruction by instruction: a
// speech encoder is hardly anything else, and plain JavaScript takes several times as long.

const ROWS = 4, COLUMNS = 8; // of the result at once: its sums then stay in registers
const STEPS = 4; // along the inner dimension between two jumps
const PAGE = 65536, HEADER = [0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0];
const I32 = 0x7f, V128 = 0x7b, FUNCTION = 0x60, NOTHING = 0x40;

/** LEB128, as WebAssembly writes whole numbers. */
function whole(value) {
  const bytes = [];
  for (let rest = value; ; rest >>>= 7) {
    if (rest < 128) return [...bytes, rest];
    bytes.push((rest & 127) | 128);
  }
}

const list = (items) => [...whole(items.length), ...items.flat()];
const section = (id, body) => [id, ...whole(body.length), ...body];
const text = (word) => list([...word].map((letter) => letter.charCodeAt(0)));

/** The code of `multiply(a, aStep, b, c, cStep, rows, depth, panels)`; addresses and steps in bytes. */
function kernel() {
  const [a, aStep, b, c, cStep, rows, depth, panels, k, left, at, to, column] = Array.from({ length: 13 }, (_, n) => n);
  const row = 13, sum = row + ROWS, right = sum + ROWS * (COLUMNS / 4), one = right + COLUMNS / 4, count = one + 1;
  const get = (n) => [0x20, ...whole(n)], set = (n) => [0x21, ...whole(n)];
  const add = (n, amount) => [get(n), amount, 0x6a, set(n)].flat();
  const number = (value) => [0x41, value]; // below 64
  const less = (n, amount) => [get(n), number(amount), 0x6b, 0x22, ...whole(n)].flat();
  const repeat = (body, n, amount) => [0x03, NOTHING, body, less(n, amount), 0x0d, 0, 0x0b].flat(Infinity);
  const load = (kind, offset) => [0xfd, kind, 2, ...whole(offset)], store = (offset) => [0xfd, 0x0b, 2, ...whole(offset)];
  const product = (total, x, y) => [get(x), get(y), 0xfd, 0xe6, 0x01, get(total), 0xfd, 0xe4, 0x01, set(total)];
  const each = (length, make) => Array.from({ length }, (_, n) => make(n));
  const wide = COLUMNS / 4;
  const step = (n) => [
    each(wide, (w) => [get(column), load(0x00, 4 * COLUMNS * n + 16 * w), set(right + w)]),
    each(ROWS, (r) => [get(row + r), load(0x09, 4 * n), set(one), each(wide, (w) => product(sum + wide * r + w, one, right + w))]),
  ];
  const inner = [
    each(STEPS, step), each(ROWS, (r) => add(row + r, number(4 * STEPS))), add(column, [0x41, ...signed(4 * COLUMNS * STEPS)]),
  ];
  const block = [
    each(ROWS * wide, (n) => [0xfd, 0x0c, new Array(16).fill(0), set(sum + n)]),
    each(ROWS, (r) => [get(r ? row + r - 1 : at), r ? [get(aStep), 0x6a] : [], set(row + r)]),
    get(b), set(column), get(depth), set(k), repeat(inner, k, STEPS),
    each(ROWS, (r) => [
      each(wide, (w) => [get(to), get(sum + wide * r + w), store(16 * w)]), add(to, get(cStep)),
    ]),
    get(row + ROWS - 1), get(depth), number(2), 0x74, 0x6b, get(aStep), 0x6a, set(at),
  ];
  const panel = [
    get(a), set(at), get(c), set(to), get(rows), set(left), repeat(block, left, ROWS),
    get(depth), number(5), 0x74, set(k), add(b, get(k)), add(c, number(4 * COLUMNS)),
  ];
  const body = [list([[...whole(row + ROWS - 8), I32], [...whole(count - row - ROWS), V128]]), repeat(panel, panels, 1), 0x0b].flat(Infinity);
  return [
    ...HEADER, ...section(1, list([[FUNCTION, ...list(new Array(8).fill(I32)), 0]])),
    ...section(2, list([[...text("m"), ...text("m"), 2, 0, 0]])), ...section(3, [1, 0]),
    ...section(7, list([[...text("multiply"), 0, 0]])), ...section(10, list([[...whole(body.length), ...body]])),
  ];
}

/** The same for what may be negative: 64 and more need another byte. */
function signed(value) {
  return value < 64 ? [value] : [(value & 127) | 128, ...signed(value >> 7)];
}

/** Memory in which matrices stand, and their product. */
export class Matrices {
  /** @param {number} floats How many numbers there is room for. */
  constructor(floats) {
    this.memory = new WebAssembly.Memory({ initial: Math.ceil((4 * floats) / PAGE) });
    this.used = 0;
    const code = Uint8Array.from(kernel());
    if (!WebAssembly.validate(code)) throw new Error("This browser is too old to speak: its WebAssembly has no SIMD.");
    this.multiply = new WebAssembly.Instance(new WebAssembly.Module(code), { m: { m: this.memory } }).exports.multiply;
  }

  /** Room for a matrix of zeros. */
  room(floats) {
    const view = new Float32Array(this.memory.buffer, 4 * this.used, floats);
    this.used += Math.ceil(floats / 4) * 4;
    return view;
  }

  /** Makes room for `weight(row, column)` [depth, columns] as `product` wants its second matrix. */
  packed(depth, columns, weight) {
    const panels = Math.ceil(columns / COLUMNS), data = this.room(panels * depth * COLUMNS);
    for (let p = 0, n = 0; p < panels; p += 1) {
      for (let k = 0; k < depth; k += 1) {
        for (let c = p * COLUMNS; c < (p + 1) * COLUMNS; c += 1, n += 1) data[n] = c < columns ? weight(k, c) : 0;
      }
    }
    return { data, depth, panels };
  }

  /**
   * a [rows, depth], whose rows begin `step` numbers apart, times a packed matrix: c, `across` numbers to a row.
   * Rows are made in fours, the depth is a multiple of four.
   */
  product(a, step, b, c, across, rows) {
    const up = Math.ceil(rows / ROWS) * ROWS;
    this.multiply(a.byteOffset, 4 * step, b.data.byteOffset, c.byteOffset, 4 * across, up, b.depth, b.panels);
  }
}
