// What a web page does to call: browser_webrtc.mjs puts it into one and lends it `begins`, `tell`,
// `orderStatus` and `hears`.

// Calls, and resolves once the recording (of `lengthS` seconds) is said.
async function call({ apiKey, session, lengthS }) {
  const connection = new RTCPeerConnection();
  const channel = connection.createDataChannel('oai-events');
  channel.onmessage = ({ data }) => take(JSON.parse(data), channel, session);
  connection.ontrack = ({ streams: [stream] }) => listen(stream);

  const plain = { echoCancellation: false, noiseSuppression: false, autoGainControl: false };
  const microphone = await navigator.mediaDevices.getUserMedia({ audio: plain });
  await begins();
  connection.addTrack(microphone.getTracks()[0], microphone);
  await connection.setLocalDescription(await connection.createOffer());
  const headers = { Authorization: `Bearer ${apiKey}`, 'Content-Type': 'application/sdp' };
  const body = connection.localDescription.sdp;
  const response = await fetch('/v1/realtime/calls', { method: 'POST', headers, body });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  await connection.setRemoteDescription({ type: 'answer', sdp: await response.text() });

  await new Promise((resolve) => setTimeout(resolve, lengthS * 1000));
  connection.close();
}

// Takes an event of the server's; runs calls and gives their results.
async function take(event, channel, session) {
  const send = (message) => channel.send(JSON.stringify(message));
  switch (event.type) {
    case 'session.created':
      return send({ type: 'session.update', session });
    case 'session.updated':
      return tell('connected');
    case 'response.output_audio_transcript.delta':
      return tell('agent_text', { text: event.delta });
    case 'response.function_call_arguments.done': {
      const output = await orderStatus(JSON.parse(event.arguments));
      const item = { type: 'function_call_output', call_id: event.call_id, output };
      send({ type: 'conversation.item.create', item });
      return send({ type: 'response.create' });
    }
    case 'response.done':
      return event.response.status === 'cancelled' && tell('interrupted');
    case 'error':
      return tell('error', { message: event.error.message });
  }
}

// Plays the agent's sound, and hands it over as PCM16 at 24 kHz.
async function listen(stream) {
  const player = new Audio();
  player.srcObject = stream; // without it Chromium decodes nothing
  await player.play();
  const context = new AudioContext({ sampleRate: 24_000 });
  const worklet = `registerProcessor('ears', class extends AudioWorkletProcessor {
    process([[samples]]) { if (samples) this.port.postMessage(samples); return true; }
  })`;
  await context.audioWorklet.addModule(URL.createObjectURL(new Blob([worklet], { type: 'text/javascript' })));
  const ears = new AudioWorkletNode(context, 'ears');
  let bytes = '';
  ears.port.onmessage = ({ data }) => {
    const samples = Int16Array.from(data, (sample) => 32_767 * Math.max(-1, Math.min(1, sample)));
    bytes += String.fromCharCode(...new Uint8Array(samples.buffer));
    if (bytes.length < 2_400) return; // 50 ms
    hears(btoa(bytes));
    bytes = '';
  };
  context.createMediaStreamSource(stream).connect(ears);
}
