// Sends what the microphone hears, and shows what the server answers.

const SECONDS = 10; // of the spectrogram
const HIGHEST = 8000; // Hz that it shows
const MINUTE = 60; // seconds
const KEPT = 50; // utterances in the list
const DECIBELS = [-100, -30]; // black and white of the spectrogram
const MARGIN = { left: 58, bottom: 22 }; // CSS pixels, for the axes
const SVG = "http://www.w3.org/2000/svg";

const find = (id) => document.getElementById(id);
const button = find("microphone");
const canvas = find("spectrogram");
const shares = [...document.querySelectorAll(".share")];
const utterances = []; // of the last minute, with the time at which each came
let listening = null; // what has to be closed when the microphone is switched off
let layer = null; // the gate that is shown; null shows the picture

function say(text, isWrong = false) {
  find("state").textContent = text;
  find("state").className = isWrong ? "bad" : "";
}

function tokenOf() {
  const field = find("token");
  if (!field) return undefined;
  const given = new URLSearchParams(location.hash.slice(1)).get("token");
  if (given) {
    field.value = given;
    history.replaceState(null, "", location.pathname); // it is not left in the address
  }
  return field.value;
}

async function start() {
  say("Waiting for the microphone…");
  if (!navigator.mediaDevices) {
    throw new Error("this browser gives microphones to pages of its own machine or over https alone: open http://127.0.0.1, for example through ssh -L");
  }
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { channelCount: 1, echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const context = new AudioContext();
  listening = { stream, context };
  await context.audioWorklet.addModule("/worklet.js");
  const source = context.createMediaStreamSource(stream);
  const passing = new AudioWorkletNode(context, "passing", { channelCount: 1, channelCountMode: "explicit" });
  const analyser = new AnalyserNode(context, { fftSize: 2048, smoothingTimeConstant: 0 });
  source.connect(analyser);
  source.connect(passing);
  const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/listen`);
  Object.assign(listening, { socket, analyser });
  socket.onopen = () => socket.send(JSON.stringify({ rate: context.sampleRate, pictures: true, token: tokenOf() }));
  passing.port.onmessage = ({ data }) => {
    if (listening?.isReady && socket.readyState === WebSocket.OPEN) socket.send(data);
  };
  socket.onmessage = ({ data }) => {
    const message = JSON.parse(data);
    if (message.type === "utterance") showUtterance(message); // the last one, where all is off again
    if (listening?.socket === socket) answer(message);
  };
  socket.onclose = () => {
    if (listening?.socket === socket) stop("The server has ended the connection.", true);
  };
  button.setAttribute("aria-pressed", "true");
  button.textContent = "Stop listening";
  draw(analyser, context.sampleRate);
}

function stop(reason = "The microphone is off.", isWrong = false) {
  const { stream, context, socket } = listening ?? {};
  listening = null;
  stream?.getTracks().forEach((track) => track.stop());
  context?.close();
  if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify({ type: "end" })); // the server closes
  else socket?.close();
  button.setAttribute("aria-pressed", "false");
  button.textContent = "Start listening";
  say(reason, isWrong);
}

function answer(message) {
  if (message.error) stop(`${message.error}.`, true);
  else if (message.type === "ready") {
    listening.isReady = true;
    say("Listening.");
  } else if (message.type === "speech") say("Somebody speaks…");
  else if (message.type === "unusable") say(`An utterance cannot be judged: ${message.reason}`, true);
  else if (message.type === "utterance") say("Listening.");
}

const percent = (share) => `${(100 * share).toFixed(0)} %`;

function showUtterance(said) {
  const text = `${said.start.toFixed(1)} to ${said.end.toFixed(1)} s: ${said.prediction}, ${percent(said.probabilities[said.prediction])}`;
  find("last").textContent = text;
  const item = document.createElement("li");
  item.textContent = text;
  find("said").prepend(item);
  while (find("said").children.length > KEPT) find("said").lastChild.remove();
  utterances.push({ ...said, came: performance.now() });
  showMinute();
  showPictures(said.pictures);
}

function showMinute() {
  const since = performance.now() - 1000 * MINUTE;
  while (utterances.length && utterances[0].came < since) utterances.shift();
  const total = utterances.reduce((sum, { start, end }) => sum + end - start, 0);
  for (const cell of shares) {
    const sum = utterances.reduce(
      (part, { start, end, probabilities }) => part + (end - start) * probabilities[cell.dataset.class], 0);
    const share = total ? sum / total : 0;
    cell.textContent = total ? percent(share) : "–";
    cell.previousElementSibling.querySelector(".fill").setAttribute("width", 100 * share);
  }
}

// The picture, or what a gate lets through of it, with axes.
function showPictures(pictures) {
  const names = pictures.length ? Object.keys(pictures[0].gates) : [];
  if (!names.includes(layer)) layer = names[0] ?? null;
  const choices = [null, ...names].map((name) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "layer", checked: name === layer });
    input.onchange = () => {
      layer = name;
      replace();
    };
    const gate = name && pictures[0].gates[name];
    label.append(input, name ? ` gate on ${name}, ${gate.low.toFixed(2)} (white) to ${gate.high.toFixed(2)}` : " the whole picture");
    return label;
  });
  find("layers").hidden = !names.length;
  find("layers").replaceChildren(find("layers").querySelector("legend"), ...choices);
  const replace = () => find("pictures").replaceChildren(...pictures.map(pictureWithAxes));
  replace();
}

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// Where a value lies among the centres of pixels, which rise or fall, from 0 to 1; null outside.
function place(value, centres) {
  for (let i = 1; i < centres.length; i++) {
    const [a, b] = [centres[i - 1], centres[i]];
    if (a !== b && (value - a) * (value - b) <= 0) return (i - 0.5 + (value - a) / (b - a)) / centres.length;
  }
  return null;
}

function ticks(low, high, most) {
  const step = [0.1, 0.2, 0.5, 1, 2, 5, 10].find((size) => (high - low) / size <= most) ?? 20;
  const first = Math.ceil(low / step - 1e-9);
  return Array.from({ length: Math.floor(high / step + 1e-9) - first + 1 }, (_, i) => (first + i) * step);
}

function pictureWithAxes(picture) {
  const left = 58;
  const width = Math.min(560, find("pictures").clientWidth - left - 16);
  const height = 200;
  const image = layer ? picture.gates[layer].image : picture.image;
  const name = layer ? `The picture under the gate on ${layer}` : "The picture";
  const svg = element("svg", { class: "heard", viewBox: `0 0 ${left + width + 16} ${height + 40}`, role: "img", "aria-label": `${name}, in Hz and s` });
  svg.append(element("image", { href: image, x: left, y: 8, width, height, preserveAspectRatio: "none" }));
  const { seconds, hertz } = picture;
  for (const time of ticks(seconds[0], seconds.at(-1), 8)) {
    const x = left + width * (place(time, seconds) ?? 0);
    svg.append(element("line", { x1: x, x2: x, y1: height + 8, y2: height + 12 }));
    svg.append(element("text", { x, y: height + 24, "text-anchor": "middle" }, `${+time.toFixed(1)} s`));
  }
  for (const tone of hertz[0] === null ? [] : [125, 500, 1000, 2000, 4000, 8000]) {
    const share = place(tone, hertz);
    if (share === null) continue;
    const y = 8 + height * share;
    svg.append(element("line", { x1: left - 4, x2: left, y1: y, y2: y }));
    svg.append(element("text", { x: left - 6, y: y + 4, "text-anchor": "end" }, `${tone} Hz`));
  }
  return svg;
}

// The spectrogram moves to the left by as many pixels as its time takes.
function draw(analyser, rate) {
  const context = canvas.getContext("2d");
  const levels = new Float32Array(analyser.frequencyBinCount);
  const scale = window.devicePixelRatio || 1;
  let done = performance.now();
  let rest = 0; // pixels that the time has earned and that are not drawn yet
  const size = () => {
    canvas.width = Math.round(canvas.clientWidth * scale);
    canvas.height = Math.round(canvas.clientHeight * scale);
    axes(context, scale);
  };
  size();
  const left = MARGIN.left * scale;
  const step = (now) => {
    if (listening?.analyser !== analyser) return;
    if (canvas.width !== Math.round(canvas.clientWidth * scale)) size();
    const [width, height] = [canvas.width - left, canvas.height - MARGIN.bottom * scale];
    rest += Math.min(1, (now - done) / 1000 / SECONDS) * width;
    done = now;
    const columns = Math.floor(rest);
    rest -= columns;
    if (columns) {
      analyser.getFloatFrequencyData(levels);
      context.drawImage(canvas, left + columns, 0, width - columns, height, left, 0, width - columns, height);
      for (let y = 0; y < height; y++) {
        const bin = Math.round(((1 - y / height) * HIGHEST * 2 * levels.length) / rate);
        const share = (Math.max(DECIBELS[0], levels[bin] ?? DECIBELS[0]) - DECIBELS[0]) / (DECIBELS[1] - DECIBELS[0]);
        context.fillStyle = colour(Math.min(1, share));
        context.fillRect(left + width - columns, y, columns, 1);
      }
    }
    requestAnimationFrame(step);
  };
  requestAnimationFrame(step);
}

// From dark blue over green to yellow, lighter the louder.
function colour(share) {
  return `hsl(${270 - 215 * share} ${60 + 30 * share}% ${8 + 62 * share}%)`;
}

function axes(context, scale) {
  const style = getComputedStyle(document.documentElement);
  const [left, bottom] = [MARGIN.left * scale, MARGIN.bottom * scale];
  const [width, height] = [canvas.width - left, canvas.height - bottom];
  context.fillStyle = style.getPropertyValue("--page");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = colour(0);
  context.fillRect(left, 0, width, height);
  context.fillStyle = style.getPropertyValue("--ink");
  context.font = `${11 * scale}px system-ui, sans-serif`;
  context.textAlign = "right";
  for (let hertz = 0; hertz < HIGHEST; hertz += 2000) {
    const y = height * (1 - hertz / HIGHEST);
    context.fillText(`${hertz} Hz`, left - 4 * scale, Math.max(10 * scale, y));
  }
  context.textAlign = "center";
  for (let time = 0; time <= SECONDS; time += 2) {
    const x = left + width * (1 - time / SECONDS);
    context.fillText(`${time ? "−" : ""}${time} s`, Math.min(x, canvas.width - 12 * scale), height + 15 * scale);
  }
}

button.onclick = async () => {
  if (listening) {
    stop();
    return;
  }
  button.disabled = true;
  try {
    await start();
  } catch (error) {
    stop(`The microphone cannot be heard: ${error.message}`, true);
  }
  button.disabled = false;
};
tokenOf();
setInterval(showMinute, 1000);
canvas.width = canvas.clientWidth;
canvas.height = canvas.clientHeight;
axes(canvas.getContext("2d"), 1);
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => axes(canvas.getContext("2d"), window.devicePixelRatio || 1));
