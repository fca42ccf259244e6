// The WebRTC door: one peer connection with audio and video, and a data channel for words.

import { ask, wantedAvatar } from "./place.js";

const FIRST_IMAGE_MS = 5000; // without an image by then, the page takes the other door
const QUIET_MS = 250; // after an interruption: what waits in the browser's buffer is not heard

export async function connectRtc(video, handlers) {
  if (!("RTCPeerConnection" in window)) throw new Error("This browser has no WebRTC.");
  const peer = new RTCPeerConnection(await ask("api/ice"));
  const channel = peer.createDataChannel("words", { ordered: true });
  const audio = peer.addTransceiver("audio", { direction: "sendrecv" });
  peer.addTransceiver("video", { direction: "recvonly" });
  const stream = new MediaStream();
  video.srcObject = stream;
  video.onpause = () => { if (!closed) handlers.silent(true); }; // by the browser, such as by a call on a phone
  peer.ontrack = (event) => stream.addTrack(event.track);
  channel.onmessage = (event) => handlers.message(JSON.parse(event.data));
  let closed = false, shown = false, id = "", waiting = [];
  const close = () => { closed = true; peer.close(); video.srcObject = null; };
  const send = (candidates) => ask("api/offer", {
    method: "PATCH", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ pc_id: id, candidates }),
  }).catch(() => {});
  peer.onicecandidate = ({ candidate }) => {
    const one = candidate
      ? { candidate: candidate.candidate, sdp_mid: candidate.sdpMid, sdp_mline_index: candidate.sdpMLineIndex }
      : { candidate: "", sdp_mid: "0", sdp_mline_index: 0 };
    if (id) send([one]); else waiting.push(one);
  };
  peer.onconnectionstatechange = () => {
    const over = ["failed", "closed"].includes(peer.connectionState);
    if (over && shown && !closed) handlers.lost("The connection was lost."); // before an image, the other door is tried
  };
  try {
    await peer.setLocalDescription(await peer.createOffer());
    const answer = await ask("api/offer", {
      method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ sdp: peer.localDescription.sdp, type: "offer", request_data: { avatar: wantedAvatar } }),
    });
    id = answer.pc_id;
    if (waiting.length) send(waiting);
    await peer.setRemoteDescription({ sdp: answer.sdp, type: answer.type });
    await firstImage(video);
    shown = true;
  } catch (error) {
    close();
    throw Object.assign(error, { session: id }); // the server keeps it for a while
  }
  return {
    door: "WebRTC",
    send: (words) => { if (channel.readyState === "open") channel.send(JSON.stringify(words)); },
    microphone: async (stream) => audio.sender.replaceTrack(stream ? stream.getAudioTracks()[0] : null),
    listen: async () => { video.muted = false; await video.play(); },
    interrupted: () => {
      if (video.muted) return;
      video.muted = true;
      setTimeout(() => { video.muted = false; }, QUIET_MS);
    },
    stats: () => measure(peer),
    close,
  };
}

function firstImage(video) {
  return new Promise((done, failed) => {
    const timer = setTimeout(() => failed(new Error("No image came through WebRTC.")), FIRST_IMAGE_MS);
    const finish = () => { clearTimeout(timer); done(); };
    if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(finish);
    else video.addEventListener("loadeddata", finish, { once: true });
    video.play().catch(() => {});
  });
}

let before = null;

/** Frames/s, milliseconds of network and buffers, and seconds by which audio comes after its image. */
async function measure(peer) {
  const found = {};
  for (const report of (await peer.getStats()).values()) {
    if (report.type === "inbound-rtp") found[report.kind] = report;
    if (report.type === "candidate-pair" && report.nominated) found.pair = report;
  }
  const { video, audio, pair } = found;
  if (!video) return null;
  const last = before && before.ssrc === video.ssrc ? before : { framesDecoded: 0, timestamp: video.timestamp - 1e9 };
  const seconds = (video.timestamp - last.timestamp) / 1000;
  const emitted = video.jitterBufferEmittedCount - (last.jitterBufferEmittedCount || 0);
  const held = video.jitterBufferDelay - (last.jitterBufferDelay || 0);
  before = video;
  const both = audio && audio.estimatedPlayoutTimestamp && video.estimatedPlayoutTimestamp;
  return {
    rate: (video.framesDecoded - last.framesDecoded) / seconds,
    latency: 500 * (pair?.currentRoundTripTime || 0) + (emitted ? (1000 * held) / emitted : 0),
    audioDelay: both ? (video.estimatedPlayoutTimestamp - audio.estimatedPlayoutTimestamp) / 1000 : null,
    frames: video.framesDecoded, dropped: video.framesDropped, freezes: video.freezeCount,
  };
}
