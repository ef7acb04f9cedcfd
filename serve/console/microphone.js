// The microphone, open as long as somebody listens to it.

const listeners = new Set();
let opening = null; // resolves to what is to be closed again

// `listener` gets PCM16 at 24 kHz, 20 ms at a time, until what is returned is called. Throws an
// Error that says in words why there is no microphone.
export async function listen(listener) {
  listeners.add(listener);
  opening ??= open();
  try {
    await opening;
  } catch (error) {
    listeners.delete(listener);
    opening = null;
    throw new Error(wordsOf(error));
  }
  return () => {
    listeners.delete(listener);
    if (!listeners.size) close();
  };
}

async function open() {
  if (!navigator.mediaDevices) throw new DOMException('', 'SecurityError');
  // The agent hears noise and distance as they are: it was trained to. Its own voice is taken out.
  const wanted = { echoCancellation: true, noiseSuppression: false, autoGainControl: false };
  const stream = await navigator.mediaDevices.getUserMedia({ audio: wanted });
  const context = new AudioContext();
  await context.audioWorklet.addModule('/console/static/worklets/capture.js');
  const capture = new AudioWorkletNode(context, 'capture', { numberOfOutputs: 0 });
  capture.port.onmessage = ({ data }) => listeners.forEach((listener) => listener(data));
  context.createMediaStreamSource(stream).connect(capture);
  await context.resume();
  return { stream, context };
}

async function close() {
  const closing = opening;
  opening = null;
  const { stream, context } = await closing;
  stream.getTracks().forEach((track) => track.stop());
  await context.close();
}

function wordsOf({ name, message }) {
  switch (name) {
    case 'NotAllowedError':
      return 'The browser does not lend the microphone to this page. Allow it, then try again.';
    case 'NotFoundError':
      return 'There is no microphone. Plug one in, then try again.';
    case 'NotReadableError':
      return 'Another program has the microphone. Close it there, then try again.';
    case 'SecurityError':
      return 'Browsers lend the microphone to pages over https or on localhost only.';
    default:
      return `The microphone did not open: ${message || name}.`;
  }
}
