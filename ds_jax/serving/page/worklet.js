// Passes on what the microphone hears, in blocks of a few hundredths of a second.

const BLOCK = 2048; // samples

class Passing extends AudioWorkletProcessor {
  constructor() {
    super();
    this.block = new Int16Array(BLOCK);
    this.filled = 0;
  }

  process(inputs) {
    const channel = inputs[0][0];
    for (let i = 0; channel && i < channel.length; i++) {
      this.block[this.filled++] = Math.max(-32768, Math.min(32767, Math.round(32768 * channel[i])));
      if (this.filled === BLOCK) {
        this.port.postMessage(this.block.buffer, [this.block.buffer]);
        this.block = new Int16Array(BLOCK);
        this.filled = 0;
      }
    }
    return true;
  }
}

registerProcessor("passing", Passing);
