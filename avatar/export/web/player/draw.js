// Draws sorted Gaussians with WebGL2: one call, whose vertices read from a texture which Gaussian they belong to.
// Instancing would do the same, but costs a software renderer sixty microseconds per instance.

const ACROSS = 2048, TEXELS = 2; // width of the texture; texels of a Gaussian

const VERTEX = `#version 300 es
precision highp float; precision highp usampler2D;
uniform usampler2D gaussians;
uniform vec2 size;
out vec2 at;
flat out vec4 shown;
void main() {
  int first = (gl_VertexID >> 2) * ${TEXELS}, corner = gl_VertexID & 3;
  ivec2 place = ivec2(first % ${ACROSS}, first / ${ACROSS});
  uvec4 a = texelFetch(gaussians, place, 0), b = texelFetch(gaussians, place + ivec2(1, 0), 0);
  vec2 rg = unpackUnorm2x16(b.y) * 2.0 - 0.5, bo = unpackUnorm2x16(b.z) * 2.0 - 0.5;
  shown = vec4(rg, bo);
  // As far as alpha is at least 1/255.
  float reach = sqrt(2.0 * log(max(255.0 * bo.y, 1.0)));
  at = (vec2(corner & 1, corner >> 1) * 2.0 - 1.0) * reach;
  vec2 pixel = uintBitsToFloat(a.xy) + vec2(uintBitsToFloat(a.z) * at.x, uintBitsToFloat(a.w) * at.x + uintBitsToFloat(b.x) * at.y);
  gl_Position = vec4(pixel / size * vec2(2.0, -2.0) + vec2(-1.0, 1.0), 0.0, 1.0);
}`;

const FRAGMENT = `#version 300 es
precision highp float;
in vec2 at;
flat in vec4 shown;
out vec4 color;
void main() {
  float alpha = shown.a * exp(-0.5 * dot(at, at));
  if (alpha < 1.0 / 255.0) discard;
  alpha = min(alpha, 0.999);
  color = vec4(shown.rgb * alpha, alpha);
}`;

export class Painter {
  constructor(canvas, count) {
    const gl = canvas.getContext("webgl2", { alpha: true, premultipliedAlpha: true, antialias: false, depth: false });
    if (!gl) throw new Error("This browser has no WebGL2, which the avatar is drawn with.");
    Object.assign(this, { gl, canvas, count, rows: Math.ceil((TEXELS * count) / ACROSS) });
    this.space = new Uint32Array(4 * ACROSS * this.rows); // of what is drawn, filled from outside
    this.prepare();
  }

  get lost() {
    return this.gl.isContextLost();
  }

  /** Waits for the graphics card, for measurements. */
  wait() {
    const { gl } = this;
    gl.readPixels(0, 0, 1, 1, gl.RGBA, gl.UNSIGNED_BYTE, new Uint8Array(4));
  }

  /** Everything that the graphics card holds; again after it has lost it. */
  prepare() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, text);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS) && !gl.isContextLost()) {
      throw new Error(`The graphics card refuses the avatar: ${gl.getProgramInfoLog(program)}`);
    }
    gl.useProgram(program);
    this.size = gl.getUniformLocation(program, "size");
    const corners = new Uint32Array(6 * this.count);
    for (let i = 0; i < this.count; i += 1) corners.set([0, 1, 2, 2, 1, 3].map((k) => 4 * i + k), 6 * i);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, corners, gl.STATIC_DRAW);
    gl.bindTexture(gl.TEXTURE_2D, gl.createTexture());
    gl.texStorage2D(gl.TEXTURE_2D, 1, gl.RGBA32UI, ACROSS, this.rows);
    for (const name of [gl.TEXTURE_MIN_FILTER, gl.TEXTURE_MAG_FILTER]) gl.texParameteri(gl.TEXTURE_2D, name, gl.NEAREST);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  /** Draws the first `drawn` Gaussians of `space`, eight words each, in their order. */
  draw(drawn) {
    const { gl, canvas } = this, rows = Math.ceil((TEXELS * drawn) / ACROSS);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT);
    if (!drawn) return;
    gl.texSubImage2D(gl.TEXTURE_2D, 0, 0, 0, ACROSS, rows, gl.RGBA_INTEGER, gl.UNSIGNED_INT, this.space);
    gl.uniform2f(this.size, canvas.width, canvas.height);
    gl.drawElements(gl.TRIANGLES, 6 * drawn, gl.UNSIGNED_INT, 0);
  }
}
