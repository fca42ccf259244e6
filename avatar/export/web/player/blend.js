// Draws sorted Gaussians without a graphics card: nearest first, pixel by pixel, as far as light still comes through.
// A software WebGL takes six times as long, because it draws what is hidden as well.

const SPAN = 16; // pixels of a row that are passed over at once where all of them are covered
const COVERED = 1 / 512; // of the light: less than half a grey level
const FALL_STEPS = 4096, FALL_MOST = 2 * Math.log(255); // of squared distances, up to alpha 1/255
const FALL = Float32Array.from({ length: FALL_STEPS + 2 }, (_, k) => Math.exp((-0.5 * (k + 0.5) * FALL_MOST) / FALL_STEPS));

export class Blender {
  constructor(canvas, count) {
    Object.assign(this, { canvas, context: canvas.getContext("2d", { willReadFrequently: true }), lost: false });
    this.space = new Uint32Array(8 * count); // of what is drawn, filled from outside, the nearest last
    this.floats = new Float32Array(this.space.buffer);
  }

  prepare() {}
  wait() {}

  /** Makes room for an image of the canvas' size. */
  aim() {
    const { width, height } = this.canvas;
    if (this.pixels?.width === width && this.pixels.height === height) return;
    this.pixels = this.context.createImageData(width, height);
    this.image = new Float32Array(4 * width * height); // premultiplied RGB, and the light that comes through
    this.spans = Math.ceil(width / SPAN);
    this.open = new Uint8Array(this.spans * height); // pixels of each span that are not covered
  }

  draw(drawn) {
    this.aim();
    const { image, open, spans, canvas: { width, height } } = this;
    image.fill(0);
    for (let i = 3; i < image.length; i += 4) image[i] = 1;
    open.fill(SPAN);
    for (let row = 0; row < height; row += 1) open[(row + 1) * spans - 1] = width - (spans - 1) * SPAN;
    for (let i = drawn - 1; i >= 0; i -= 1) this.blend(8 * i);
    this.show();
  }

  /** One Gaussian: in each row, the pixels where its alpha is at least 1/255. */
  blend(at) {
    const { floats, space, image, open, spans, canvas: { width, height } } = this;
    const u = floats[at], v = floats[at + 1], l11 = floats[at + 2], l21 = floats[at + 3], l22 = floats[at + 4];
    const unit = (word) => word / 32767.5 - 0.5;
    const r = unit(space[at + 5] & 65535), g = unit(space[at + 5] >>> 16), b = unit(space[at + 6] & 65535);
    const opacity = unit(space[at + 6] >>> 16), limit = 2 * Math.log(255 * opacity);
    if (!(limit > 0)) return;
    const xx = l11 * l11, xy = l11 * l21, yy = l21 * l21 + l22 * l22, determinant = xx * l22 * l22;
    const A = yy / determinant, B = -xy / determinant, C = xx / determinant, tall = Math.sqrt(limit * yy);
    const top = Math.max(0, Math.ceil(v - tall - 0.5)), bottom = Math.min(height - 1, Math.floor(v + tall - 0.5));
    const scale = FALL_STEPS / FALL_MOST, second = 2 * A;
    for (let y = top; y <= bottom; y += 1) {
      const dy = y + 0.5 - v, wide = B * B * dy * dy - A * (C * dy * dy - limit);
      if (wide < 0) continue;
      const middle = u - (B * dy) / A - 0.5, half = Math.sqrt(wide) / A;
      const end = Math.min(width - 1, Math.floor(middle + half));
      for (let x = Math.max(0, Math.ceil(middle - half)); x <= end;) {
        const span = y * spans + (x >> 4), last = Math.min(end, x | (SPAN - 1));
        if (open[span]) {
          const dx = x + 0.5 - u;
          let q = A * dx * dx + 2 * B * dx * dy + C * dy * dy, change = A * (2 * dx + 1) + 2 * B * dy, closed = 0;
          for (let p = 4 * (y * width + x), stop = 4 * (y * width + last); p <= stop; p += 4) {
            const light = image[p + 3];
            if (light > COVERED) {
              const alpha = opacity * FALL[(q * scale) | 0], part = light * (alpha < 0.999 ? alpha : 0.999);
              image[p] += part * r;
              image[p + 1] += part * g;
              image[p + 2] += part * b;
              image[p + 3] = light - part;
              if (light - part <= COVERED) closed += 1;
            }
            q += change;
            change += second;
          }
          open[span] -= closed;
        }
        x = last + 1;
      }
    }
  }

  show() {
    const { image, pixels: { data } } = this;
    for (let i = 0; i < data.length; i += 4) {
      const alpha = 1 - image[i + 3];
      if (alpha <= 0) {
        data[i + 3] = 0;
        continue;
      }
      const scale = 255 / alpha;
      data[i] = image[i] * scale; // rounded and clamped by the array
      data[i + 1] = image[i + 1] * scale;
      data[i + 2] = image[i + 2] * scale;
      data[i + 3] = 255 * alpha;
    }
    this.context.putImageData(this.pixels, 0, 0);
  }
}

/** Whether WebGL2 runs on a graphics card, as far as the browser tells. */
export function hasGraphics() {
  const gl = document.createElement("canvas").getContext("webgl2");
  if (!gl) return false;
  const known = gl.getExtension("WEBGL_debug_renderer_info");
  const name = gl.getParameter(known ? known.UNMASKED_RENDERER_WEBGL : gl.RENDERER);
  gl.getExtension("WEBGL_lose_context")?.loseContext();
  return !/swiftshader|llvmpipe|softpipe|software|basic render/i.test(name);
}
