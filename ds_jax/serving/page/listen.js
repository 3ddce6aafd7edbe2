// Sends what the microphone hears, and shows what the server answers.

const SECONDS = 10; // of the spectrogram
const HIGHEST = 8000; // Hz that it shows
const MINUTE = 60; // seconds
const KEPT = 50; // utterances in the list
const DECIBELS = [-100, -30]; // the darkest and the lightest colour of the spectrogram
const MARGIN = { left: 58, bottom: 22, right: 72 }; // CSS pixels, for the axes and the colour bar
const SVG = "http://www.w3.org/2000/svg";

const find = (id) => document.getElementById(id);
const button = find("microphone");
const canvas = find("spectrogram");
const shares = [...document.querySelectorAll(".share")];
const utterances = []; // of the last minute, with the time at which each came
let listening = null; // what has to be closed when the microphone is switched off
let layer = null; // what is shown of a picture: the name of a panel

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

// The pictures that the models read: whole, or under one of their gates.
function showPictures(panels) {
  const names = [...new Set(panels.map(({ name }) => name))]; // the first one is the picture's
  if (!names.includes(layer)) layer = names[1] ?? names[0];
  const replace = () => find("pictures").replaceChildren(...panels.filter(({ name }) => name === layer).map(figure));
  const choices = names.map((name) => {
    const label = document.createElement("label");
    const input = Object.assign(document.createElement("input"), { type: "radio", name: "layer", checked: name === layer });
    input.onchange = () => {
      layer = name;
      replace();
    };
    label.append(input, name === names[0] ? " the whole picture" : ` under the gate on ${name}`);
    return label;
  });
  find("layers").hidden = names.length < 2;
  find("layers").replaceChildren(find("layers").querySelector("legend"), ...choices);
  replace();
}

function element(name, attributes, text = "") {
  const made = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  made.textContent = text;
  return made;
}

// A picture with axes and a colour bar, whose marks have places from 0 to 1.
function figure(panel) {
  const [left, top, height, beside] = [58, 8, 200, 78];
  const width = Math.min(560, find("pictures").clientWidth - left - beside);
  const right = left + width;
  const svg = element("svg", { class: "heard", viewBox: `0 0 ${right + beside} ${height + 52}`, role: "img", "aria-label": panel.caption });
  svg.append(element("image", { href: panel.image, x: left, y: top, width, height, preserveAspectRatio: "none" }));
  svg.append(element("image", { href: panel.bar, x: right + 8, y: top, width: 10, height, preserveAspectRatio: "none" }));
  const write = (text, x, y, anchor, more = {}) => svg.append(element("text", { x, y, "text-anchor": anchor, ...more }, text));
  for (const [place, text] of panel.x_ticks) write(text, left + width * place, top + height + 14, "middle");
  for (const [place, text] of panel.y_ticks) write(text, left - 4, top + height * place + 4, "end");
  for (const [place, text] of panel.bar_ticks) write(text, right + 22, top + 8 + (height - 8) * (1 - place), "start");
  write(panel.x_label, left + width / 2, top + height + 34, "middle");
  const middle = top + height / 2;
  write(panel.y_label, 12, middle, "middle", { transform: `rotate(-90 12 ${middle})` });
  const made = document.createElement("figure");
  const caption = document.createElement("figcaption");
  caption.textContent = panel.caption;
  made.append(svg, caption);
  return made;
}

// The spectrogram moves to the left by as many pixels as its time takes.
function draw(analyser, rate) {
  const context = canvas.getContext("2d");
  const levels = new Float32Array(analyser.frequencyBinCount);
  const scale = window.devicePixelRatio || 1;
  let done = performance.now();
  let rest = 0; // pixels that the time has earned and that are not drawn yet
  const fit = () => {
    const sides = [canvas.clientWidth, canvas.clientHeight].map((side) => Math.round(side * scale));
    if (canvas.width === sides[0] && canvas.height === sides[1]) return;
    [canvas.width, canvas.height] = sides;
    axes(context, scale);
  };
  axes(context, scale);
  const left = MARGIN.left * scale;
  const step = (now) => {
    if (listening?.analyser !== analyser) return;
    fit();
    const [width, height] = [canvas.width - left - MARGIN.right * scale, canvas.height - MARGIN.bottom * scale];
    rest += Math.min(1, (now - done) / 1000 / SECONDS) * width;
    done = now;
    const columns = Math.floor(rest);
    rest -= columns;
    if (columns && width > 0 && height > 0) { // a browser may show nothing for a while
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
  const [left, right] = [MARGIN.left * scale, canvas.width - MARGIN.right * scale];
  const [width, height] = [right - left, canvas.height - MARGIN.bottom * scale];
  context.fillStyle = style.getPropertyValue("--page");
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.fillStyle = colour(0);
  context.fillRect(left, 0, width, height);
  for (let y = 0; y < height; y++) {
    context.fillStyle = colour(1 - y / height);
    context.fillRect(right + 8 * scale, y, 10 * scale, 1);
  }
  context.fillStyle = style.getPropertyValue("--ink");
  context.font = `${11 * scale}px system-ui, sans-serif`;
  const beside = (text, x, share) => context.fillText(text, x, Math.max(10 * scale, height * (1 - share)));
  context.textAlign = "right";
  for (let hertz = 0; hertz <= HIGHEST; hertz += 2000) beside(`${hertz} Hz`, left - 4 * scale, hertz / HIGHEST);
  context.textAlign = "left";
  for (const share of [0, 1]) {
    const level = `${DECIBELS[share]}`.replace("-", "−");
    beside(`${level} dB`, right + 22 * scale, share);
  }
  context.textAlign = "center";
  for (let time = 0; time <= SECONDS; time += 2) {
    context.fillText(`${time ? "−" : ""}${time} s`, left + width * (1 - time / SECONDS), height + 15 * scale);
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
