// Camera and microphone: opened as they are, without anything that changes the voice, and recorded piece by piece.

const WORDS = {
  NotAllowedError: "The browser may not use camera and microphone. Allow both beside the address of this page.",
  NotFoundError: "No camera or no microphone was found. Plug both in, and try again.",
  NotReadableError: "Camera or microphone is used by another program, or does not answer. Close that program.",
  OverconstrainedError: "No camera or no microphone was found. Plug both in, and try again.",
};
const KINDS = ["video/webm;codecs=vp8,pcm", "video/webm;codecs=vp8,opus", "video/webm", "video/mp4"];
const WINDOW = 30; // levels of 100 ms that are judged together
const QUIET = -45, CLIPPED = 0.99;

export async function openCamera() {
  if (!navigator.mediaDevices?.getUserMedia) {
    throw new Error("Browsers give a camera only to pages of this machine. Open the address that was printed.");
  }
  try {
    return await navigator.mediaDevices.getUserMedia({
      video: { width: { ideal: 1280 }, height: { ideal: 720 }, frameRate: { ideal: 30 } },
      audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false, channelCount: 1 },
    });
  } catch (error) {
    throw new Error(WORDS[error.name] || `Camera and microphone cannot be used: ${error.message}`);
  }
}

/** Starts to record a stream; the call that is returned stops, and gives the recording. */
export function startRecording(stream) {
  const mimeType = KINDS.find((kind) => MediaRecorder.isTypeSupported(kind));
  const recorder = new MediaRecorder(stream, { mimeType, videoBitsPerSecond: 8e6, audioBitsPerSecond: 192000 });
  const parts = [];
  recorder.ondataavailable = ({ data }) => parts.push(data);
  recorder.start(1000);
  return () => new Promise((done) => {
    const give = () => done(new Blob(parts, { type: recorder.mimeType.split(";")[0] }));
    if (recorder.state === "inactive") return give(); // it ended by itself, as where a device fails
    recorder.onstop = give;
    recorder.stop();
  });
}

/** An image of a video as a JPEG. */
export function grab(video) {
  const canvas = document.createElement("canvas"), scale = Math.min(1, 960 / video.videoWidth);
  canvas.width = Math.round(scale * video.videoWidth);
  canvas.height = Math.round(scale * video.videoHeight);
  canvas.getContext("2d").drawImage(video, 0, 0, canvas.width, canvas.height);
  return new Promise((done) => canvas.toBlob(done, "image/jpeg", 0.85));
}

/** Measures a microphone ten times a second: its level (0 to 1) and what to think of it. Returns what stops that. */
export function watchLevel(stream, show) {
  const context = new AudioContext(), analyser = context.createAnalyser();
  analyser.fftSize = 8192;
  context.createMediaStreamSource(stream).connect(analyser);
  const data = new Float32Array(analyser.fftSize), levels = [], peaks = [];
  const timer = setInterval(() => {
    analyser.getFloatTimeDomainData(data);
    const level = 10 * Math.log10(data.reduce((sum, value) => sum + value * value, 0) / data.length + 1e-10);
    levels.push(level);
    peaks.push(data.reduce((most, value) => Math.max(most, Math.abs(value)), 0));
    if (levels.length > WINDOW) { levels.shift(); peaks.shift(); }
    show(Math.min(1, Math.max(0, 1 + level / 60)), judged(Math.max(...levels), Math.max(...peaks)));
  }, 100);
  return () => { clearInterval(timer); context.close(); };
}

function judged(level, peak) {
  if (peak >= CLIPPED) return { name: "level", state: "bad", text: "It is too loud: the audio is clipped. Turn the microphone down." };
  if (level < QUIET) return { name: "level", state: "note", text: "Nothing loud enough is received. Say something to test the microphone." };
  return { name: "level", state: "good", text: "The microphone receives you." };
}
