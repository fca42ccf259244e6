// What the element is made of, and how it looks; light and dark follow the system.

const STYLE = `
:host { display: block; --ink: #1d1f21; --soft: #62676c; --line: #d8d9d6; --card: #fff; --strong: #1c6b58; --on-strong: #fff;
  font: 16px/1.45 system-ui, sans-serif; color: var(--ink); }
@media (prefers-color-scheme: dark) { :host { --ink: #e8e8e6; --soft: #a3a8ac; --line: #383c3f; --card: #1e2123;
  --strong: #6cc9ae; --on-strong: #0e1a17; } }
[hidden] { display: none !important; }
.stage { position: relative; overflow: hidden; touch-action: pan-y; cursor: grab; user-select: none; border-radius: .5rem; }
.stage:active { cursor: grabbing; }
:focus-visible { outline: 3px solid var(--strong); outline-offset: 2px; }
img, canvas { display: block; width: 100%; height: 100%; pointer-events: none; }
img { position: absolute; inset: 0; }
canvas { position: relative; }
.said { position: absolute; inset: 0; margin: 0; display: grid; place-items: center; text-align: center; padding: 2rem; color: var(--soft); background: var(--card); }
.mark { position: absolute; left: .5rem; top: .5rem; padding: .1rem .45rem; border-radius: .4rem; font-size: .75rem; color: #fff; background: #0009; pointer-events: none; }
.start { position: absolute; left: 50%; bottom: 1rem; transform: translateX(-50%); border: 0; border-radius: 2rem; padding: .7rem 1.3rem;
  background: var(--strong); color: var(--on-strong); font: inherit; cursor: pointer; box-shadow: 0 2px 12px #0006; }
.bar { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-top: .5rem; }
button.play, button.mute, .speech button, select { font: inherit; color: var(--ink); background: var(--card); border: 1px solid var(--line); border-radius: .5rem; min-height: 2.75rem; padding: .4rem .8rem; cursor: pointer; max-width: 100%; }
.play { min-width: 5.5rem; }
.seek { flex: 1; min-width: 8rem; }
.time { font-variant-numeric: tabular-nums; font-size: .875rem; color: var(--soft); }
input[type=range] { accent-color: var(--strong); }
.speech { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin-top: .5rem; }
.speech p { flex: 1 1 12rem; margin: 0; font-size: .875rem; color: var(--soft); }
.stage.over { outline: 3px dashed var(--strong); outline-offset: -6px; }
details { margin-top: .5rem; }
summary { cursor: pointer; padding: .4rem 0; }
label { display: grid; grid-template-columns: 8rem minmax(0, 1fr); gap: .5rem; align-items: center; font-size: .875rem; color: var(--soft); min-height: 2rem; }`;

/** Gives the parts their look; as a sheet of its own, because a policy of the page may refuse a style in it. */
function dress(root) {
  if (globalThis.CSSStyleSheet?.prototype.replaceSync && "adoptedStyleSheets" in root) {
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(STYLE);
    root.adoptedStyleSheets = [sheet];
  } else {
    const style = document.createElement("style");
    style.textContent = STYLE;
    root.prepend(style);
  }
}

const PARTS = `<div class="stage" tabindex="0" role="group" part="stage">
  <img class="image" alt="" part="background"><canvas class="canvas" role="img" part="canvas"></canvas>
  <span class="mark" title="Made by a model that was trained on this person">AI-generated</span>
  <p class="said" role="status">Loading …</p>
  <button class="start" type="button" hidden>Play</button>
</div>
<div class="bar" part="controls" hidden>
  <button class="play" type="button">Play</button>
  <input class="seek" type="range" min="0" max="0" step="0.04" value="0" aria-label="Position">
  <span class="time">0:00</span>
  <button class="mute" type="button" aria-pressed="false">Mute</button>
  <select class="clips" aria-label="Clip" hidden></select>
</div>
<div class="speech" part="speech" hidden>
  <button class="choose" type="button">Speak an audio file …</button>
  <button class="microphone" type="button">Speak with my microphone</button>
  <button class="stop" type="button" hidden>Stop</button>
  <p class="note" role="status"></p>
  <input class="file" type="file" accept="audio/*,video/*" hidden>
</div>
<details class="expression" hidden><summary>Expression</summary><div class="sliders"></div></details>`;
