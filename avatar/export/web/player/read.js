// Reads the files of a web folder. Their format is written down in avatar/export/web/format.py.

const TYPES = { U8: Uint8Array, I8: Int8Array, U16: Uint16Array, I16: Int16Array, F32: Float32Array };

/** Bytes of a file. A page that was opened from disk may not fetch, but it may load scripts. */
export async function readFile(base, name) {
  const url = new URL(name, base);
  if (url.protocol === "file:") return readScript(url.href, name);
  let answer;
  try {
    answer = await fetch(url);
  } catch {
    throw new Error(`${name} cannot be reached.`);
  }
  if (!answer.ok) throw new Error(`${name} cannot be loaded: the server answered ${answer.status}.`);
  return new Uint8Array(await answer.arrayBuffer());
}

/** Bytes that a script holds. It hands them to its own element, because folders have files of the same names. */
function readScript(address, name) {
  globalThis.avatarFile ||= (file, text) => document.currentScript.take?.(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)));
  return new Promise((done, fail) => {
    const script = document.createElement("script");
    script.take = done;
    script.src = `${address}.js`;
    script.onload = () => { script.remove(); fail(new Error(`${name}.js is damaged.`)); };
    script.onerror = () => fail(new Error(`${name}.js is missing beside the page.`));
    document.head.append(script);
  });
}

export async function readJson(base, name) {
  return JSON.parse(new TextDecoder().decode(await readFile(base, name)));
}

/** Arrays of a gzipped safetensors file, by name: { data, shape }. */
export async function readArrays(base, name) {
  const packed = new Blob([await readFile(base, name)]).stream();
  const bytes = await new Response(packed.pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
  const length = Number(new DataView(bytes).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 8, length)));
  const arrays = {};
  for (const [key, { dtype, shape, data_offsets: [from, to] }] of Object.entries(header)) {
    if (key === "__metadata__") continue;
    const part = bytes.slice(8 + length + from, 8 + length + to); // a copy begins where its type wants it
    arrays[key] = { data: new TYPES[dtype](part), shape };
  }
  return arrays;
}

/** Running sums along time of differences i16 [C, T], times the step of each row, as rows of floats. */
export function summed({ data, shape: [rows, frames] }, step) {
  const sums = new Float32Array(rows * frames);
  for (let row = 0; row < rows; row += 1) {
    const factor = step.length > 1 ? step[row] : step[0];
    let sum = 0;
    for (let t = row * frames; t < (row + 1) * frames; t += 1) {
      sum = ((sum + data[t]) << 16) >> 16; // differences are modulo 2^16
      sums[t] = sum * factor;
    }
  }
  return sums;
}
