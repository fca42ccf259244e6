// The microphone: asked for when it is needed, and said in words where it cannot be had.

const WORDS = {
  NotAllowedError: "The browser may not use the microphone. Allow it beside the address of this page.",
  NotFoundError: "No microphone was found. Plug one in, or type a text.",
  NotReadableError: "The microphone is used by another program, or does not answer.",
};

export async function openMicrophone() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("Browsers give a microphone only to https pages, or on the server's own machine.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true, channelCount: 1 },
    });
  } catch (error) {
    throw new Error(WORDS[error.name] || `The microphone cannot be used: ${error.message}`);
  }
}

/** The microphone while it is wanted. It may be given back at any time, also while the browser still asks for it. */
export class Microphone {
  /** `hand` takes the stream, and null where it is over; `ended` hears that it is gone, and `level` how loud it is. */
  constructor({ hand, ended, level }) {
    Object.assign(this, { hand, ended, level, stream: null, turn: 0, stopLevel: () => {} });
  }

  /** Open it; false where it was given back meanwhile. */
  async open() {
    if (this.stream) return true;
    const turn = this.turn += 1, mine = () => turn === this.turn;
    try {
      const stream = await openMicrophone();
      if (!mine()) {
        stopTracks(stream);
        return false;
      }
      this.stream = stream;
      stream.getTracks()[0].onended = () => { if (mine()) this.ended(); };
      this.stopLevel = watchLevel(stream, this.level);
      await this.hand(stream);
    } catch (error) {
      if (!mine()) return false; // nobody waits for it any more
      this.close();
      throw error;
    }
    return mine();
  }

  close() {
    this.turn += 1;
    if (!this.stream) return;
    stopTracks(this.stream);
    this.stream = null;
    this.stopLevel();
    this.stopLevel = () => {};
    this.hand(null).catch(() => {}); // a connection that is lost cannot let go of it
  }
}

function stopTracks(stream) {
  for (const track of stream.getTracks()) track.stop();
}

/** Hands on 16 kHz mono int16 samples of a stream. */
export class MicrophoneReader {
  static async open(stream, take) {
    const reader = new MicrophoneReader();
    reader.context = new AudioContext(); // Firefox connects no microphone to one of 16 kHz; the worklet makes it that
    try {
      await reader.context.audioWorklet.addModule("page/microphone-worklet.js");
      reader.source = reader.context.createMediaStreamSource(stream);
      reader.node = new AudioWorkletNode(reader.context, "microphone", { numberOfOutputs: 0 });
      reader.node.port.onmessage = ({ data }) => take(data);
      reader.source.connect(reader.node);
    } catch (error) {
      reader.context.close();
      throw error;
    }
    return reader;
  }

  stop() {
    this.node.port.onmessage = null;
    this.context.close();
  }
}

/** Loudness of a stream, 0 to 1, for a meter; call the result to stop. */
export function watchLevel(stream, show) {
  const context = new AudioContext(), analyser = context.createAnalyser();
  context.createMediaStreamSource(stream).connect(analyser);
  const data = new Float32Array(analyser.fftSize);
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(data);
    const power = data.reduce((sum, value) => sum + value * value, 0) / data.length;
    show(Math.min(1, Math.max(0, 1 + Math.log10(power + 1e-9) / 5)));
  }, 100);
  return () => { clearInterval(timer); context.close(); show(0); };
}
