// The viewpoint: dragged or moved with the arrow keys, inside the views that are good.

const DEGREES_PER_PIXEL = 0.2, KEY_DEGREES = 3, BEYOND = 1.25, SEND_MS = 40, ZOOM = [1, 3];
const ZOOM_FREE = 0.5; // what lies beyond the edge of the frame was not filmed
const MOST = [180, 85], DIAL = [66, 32]; // degrees that one can go at all, and that the dial shows
// What stands behind the degrees on the dial, where there is room for a few words, and what is read aloud.
const NOTES = { beyond: "not filmed", limit: "at the limit", unmeasured: "not measured" };
const ALOUD = { beyond: "beyond what was filmed", limit: "at the limit", unmeasured: "limits were not measured" };
const KEYS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };

export class View {
  constructor(stage, dial, send) {
    this.stage = stage;
    this.dial = dial;
    this.send = send;
    this.limits = { left: 20, right: 20, up: 10, down: 10 };
    this.free = false; // whether the user let go of the limits
    this.measured = true;
    this.reset(false);
    stage.addEventListener("pointerdown", (event) => this.grab(event));
    stage.addEventListener("pointermove", (event) => this.drag(event));
    for (const name of ["pointerup", "pointercancel"]) {
      stage.addEventListener(name, (event) => { if (event.isPrimary) this.held = null; });
    }
    stage.addEventListener("dblclick", () => this.reset());
    stage.addEventListener("keydown", (event) => this.key(event));
    stage.addEventListener("wheel", (event) => {
      if (!event.ctrlKey && !event.shiftKey) return; // the page must scroll
      event.preventDefault();
      this.zoomBy(Math.exp(-(event.deltaY || event.deltaX) / 500)); // with Shift, browsers turn across
    }, { passive: false });
  }

  allow(limits, measured = true) {
    this.limits = limits;
    this.measured = measured;
    const { left, right, up, down } = limits;
    this.dial.querySelector("#border").setAttribute("d",
      `M${right} 0A${right} ${up} 0 0 0 0 ${-up}A${left} ${up} 0 0 0 ${-left} 0` +
      `A${left} ${down} 0 0 0 0 ${down}A${right} ${down} 0 0 0 ${right} 0Z`);
    this.dial.removeAttribute("hidden"); // SVG has no property of that name
    this.show();
  }

  reset(tell = true) {
    [this.azimuth, this.elevation, this.zoom, this.held] = [0, 0, 1, null];
    this.show();
    if (tell) this.tell();
  }

  grab(event) {
    if (!event.isPrimary || event.target.closest("button")) return; // a second finger is elsewhere
    this.held = [event.clientX, event.clientY];
    this.stage.setPointerCapture(event.pointerId);
  }

  drag(event) {
    if (!this.held || !event.isPrimary) return;
    const [x, y] = this.held;
    this.held = [event.clientX, event.clientY];
    const tall = event.pointerType === "touch" ? 0 : event.clientY - y; // a finger that moves up scrolls the page
    this.turn(-(event.clientX - x) * DEGREES_PER_PIXEL, tall * DEGREES_PER_PIXEL);
  }

  key(event) {
    if (event.target !== this.stage) return;
    if (event.key in KEYS) this.turn(...KEYS[event.key].map((steps) => steps * KEY_DEGREES));
    else if (event.key === "0") this.reset();
    else if (event.key === "+" || event.key === "-") this.zoomBy(event.key === "+" ? 1.1 : 1 / 1.1);
    else return;
    event.preventDefault();
  }

  zoomBy(factor) {
    this.zoom = Math.min(ZOOM[1], Math.max(this.free ? ZOOM_FREE : ZOOM[0], this.zoom * factor));
    this.tell();
  }

  /** Whether the view is another one than that with which a session begins. */
  get moved() { return this.azimuth !== 0 || this.elevation !== 0 || this.zoom !== 1; }

  /** How far the view is from the centre: 1 on the border. */
  ratio() {
    const { left, right, up, down } = this.limits;
    return Math.hypot(this.azimuth / (this.azimuth > 0 ? right : left), this.elevation / (this.elevation > 0 ? up : down));
  }

  turn(azimuth, elevation) {
    this.azimuth += azimuth;
    this.elevation += elevation;
    const ratio = this.ratio();
    if (this.free) {
      this.azimuth = Math.min(MOST[0], Math.max(-MOST[0], this.azimuth));
      this.elevation = Math.min(MOST[1], Math.max(-MOST[1], this.elevation));
    } else if (ratio > BEYOND) { // the server stops softly there; asking for more would make dragging back feel stuck
      this.azimuth *= BEYOND / ratio;
      this.elevation *= BEYOND / ratio;
    }
    if (!this.free) this.zoom = Math.max(ZOOM[0], this.zoom);
    this.show();
    this.tell();
  }

  show() {
    const ratio = this.free ? 1 : Math.max(1, this.ratio()), dot = this.dial.querySelector("#dot");
    const [x, y] = [this.azimuth / ratio, this.elevation / ratio];
    dot.setAttribute("cx", Math.min(DIAL[0], Math.max(-DIAL[0], x)));
    dot.setAttribute("cy", -Math.min(DIAL[1], Math.max(-DIAL[1], y)));
    this.dial.classList.toggle("limit", this.ratio() > 0.97);
    const outside = this.ratio() > 1.001 && this.free;
    const note = outside ? "beyond" : this.ratio() > 0.97 ? "limit" : this.measured ? "" : "unmeasured";
    this.dial.querySelector("#place").textContent = `${Math.round(x)}°, ${Math.round(y)}°` + (note && `, ${NOTES[note]}`);
    this.dial.setAttribute("aria-label",
      `View: ${Math.round(x)} degrees to the side, ${Math.round(y)} up` + (note && `, ${ALOUD[note]}`));
  }

  tell() {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = null;
      this.send({ type: "view", azimuth: this.azimuth, elevation: this.elevation, zoom: this.zoom });
    }, SEND_MS);
  }
}
