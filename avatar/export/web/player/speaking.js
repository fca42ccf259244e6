// What people do to make the avatar speak: choose or drop audio, or allow the microphone. Failures are told in words.

const READY = "An audio file may also be dropped on the avatar. Nothing leaves this page.";
const REFUSED = {
  NotAllowedError: "The microphone was not allowed. Allow it beside the page's address, and try again.",
  NotFoundError: "There is no microphone.",
  NotReadableError: "Another program holds the microphone.",
};

export class Speaking {
  constructor(player) {
    const { ui } = player;
    Object.assign(this, { player, ui, clip: null, stream: null, turn: 0 });
    ui.choose.addEventListener("click", () => ui.file.click());
    ui.file.addEventListener("change", () => {
      const [file] = ui.file.files;
      ui.file.value = ""; // the same file may be chosen again
      if (file) this.told(this.speak(file, file.name));
    });
    ui.microphone.addEventListener("click", () => this.told(this.listen()));
    ui.stop.addEventListener("click", () => this.told(this.stop()));
    this.wireDrop();
  }

  wireDrop() {
    const { stage } = this.ui, able = () => this.player.engine?.manifest.speech;
    stage.addEventListener("dragover", (event) => {
      if (!able()) return;
      event.preventDefault();
      stage.classList.add("over");
    });
    stage.addEventListener("dragleave", () => stage.classList.remove("over"));
    stage.addEventListener("drop", (event) => {
      if (!able()) return;
      event.preventDefault();
      stage.classList.remove("over");
      const [file] = event.dataTransfer.files;
      if (file) this.told(this.speak(file, file.name));
    });
  }

  present(engine) {
    this.ui.note.textContent = READY;
    engine.addEventListener("blocked", () => this.note("Press Play to hear it: this browser wants a click first."));
    engine.addEventListener("slow", () => this.told(this.stop().then(() => { throw new Error("This computer is too slow to speak along."); })));
  }

  /** Says what went wrong, where nobody else waits for it. */
  told(promise) {
    return promise.catch((error) => { this.note(error.message); });
  }

  note(sentence) {
    this.ui.note.textContent = sentence;
  }

  /** Begins a turn, which the next one ends. */
  async begin(sentence, act) {
    const { engine } = this.player, turn = this.turn += 1;
    if (!engine) throw new Error("The avatar has not been loaded yet.");
    if (engine.clip?.name) this.clip = engine.clip.name;
    engine.clock.pause();
    this.note(sentence);
    try {
      await act(engine, () => turn === this.turn);
    } catch (error) {
      if (turn === this.turn) this.end(); // a microphone that nobody hears is closed
      throw error;
    }
  }

  async speak(source, title = "Audio") {
    this.release();
    await this.begin("Listening to it …", (engine, mine) => {
      const heard = engine.speak(source, title);
      const told = () => { if (mine()) this.note(`The avatar speaks ${title}. Nothing leaves this page.`); };
      engine.addEventListener("play", told, { once: true });
      return heard;
    });
  }

  async listen(stream = null) {
    this.release();
    await this.begin("Waiting for the microphone …", async (engine, mine) => {
      const given = stream || await asked();
      if (!mine()) return stream || stopped(given);
      if (!stream) this.stream = given;
      for (const track of given.getAudioTracks()) track.addEventListener("ended", () => { if (mine()) this.told(this.stop()); });
      await engine.listen(given);
      if (mine()) this.note("The avatar speaks along. Nothing leaves this page.");
    });
  }

  async stop() {
    this.end();
    const { engine } = this.player;
    engine?.unsay();
    if (engine?.clip && !engine.clip.name) {
      engine.clock.close();
      await this.player.choose(this.clip || engine.manifest.clips[0].name);
    }
  }

  /** Ends a turn: what it still waits for is not used any more. */
  end() {
    this.release();
    this.turn += 1;
    this.note(READY);
  }

  release() {
    if (this.stream) stopped(this.stream);
    this.stream = null;
  }

  show() {
    const { clip } = this.player.engine;
    this.ui.stop.hidden = !clip || Boolean(clip.name);
    if (clip?.name && this.stream) this.release();
  }
}

async function asked() {
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("Browsers give the microphone only to pages from https, or from this computer.");
  try {
    return await navigator.mediaDevices.getUserMedia({ audio: true });
  } catch (error) {
    throw new Error(REFUSED[error.name] || `The microphone cannot be used: ${error.message}`);
  }
}

function stopped(stream) {
  for (const track of stream.getTracks()) track.stop();
}
