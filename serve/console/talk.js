// A call with the agent: the microphone goes to it, what it says is played. OpenAI's Live protocol.
import { byId, notify } from './dom.js';
import { sentence } from './api.js';
import { askForKeys, keyOf } from './keys.js';
import { listen } from './microphone.js';
import { samplesOf, textOf, rateHz } from './pcm.js';
import { Speaker } from './speaker.js';
import { whyRefused } from './why.js';

const path = '/v1/live/sessions';
const mostBuffered = 2 ** 18; // bytes: sound that can't be sent is left out
const resumeMs = 25_000; // the server keeps a call for so long
const againMs = 1000;

export class Talk {
  session = ''; // of the call that goes on here
  #sessions;
  #speaker = new Speaker();
  #socket = null;
  #stop = null; // lets the microphone go
  #isMuted = false;
  #token = '';
  #lostAt = 0;
  #isEnding = false;

  constructor(sessions) {
    this.#sessions = sessions;
    sessions.onChange(() => this.#show());
    byId('talk').addEventListener('click', () => (this.#stop ? this.#hangUp() : this.#begin()));
    byId('mute').addEventListener('click', () => this.#mute(!this.#isMuted));
    this.#show();
  }

  async #begin() {
    byId('talk').disabled = true; // until it is clear what becomes of it
    this.#tell('Opening the microphone …');
    try {
      await this.#speaker.open();
      this.#stop = await listen((samples) => this.#say(samples));
    } catch (error) {
      this.#over();
      notify(error.message);
      return;
    }
    byId('talk').disabled = false;
    this.#show();
    this.#tell('Connecting …');
    this.#isEnding = false;
    this.#connect('');
  }

  #connect(resume) {
    const query = resume ? `resume=${encodeURIComponent(resume)}` : 'extensions=duologue';
    const key = keyOf('client');
    const protocols = key ? ['realtime', `openai-insecure-api-key.${key}`] : ['realtime'];
    const socket = new WebSocket(`${location.origin.replace('http', 'ws')}${path}?${query}`, protocols);
    this.#socket = socket;
    socket.onopen = () => resume || this.#start();
    socket.onmessage = ({ data }) => socket === this.#socket && this.#take(JSON.parse(data));
    socket.onclose = () => socket === this.#socket && this.#closed();
  }

  #start() {
    this.#send({
      type: 'session.start',
      session: {
        model: 'duologue',
        instructions: byId('role').value,
        audio: { format: { type: 'audio/pcm', rate: rateHz } },
        delegation: { type: 'responses', responses: { tools: [] } },
      },
    });
  }

  #take(message) {
    switch (message.type) {
      case 'session.output_audio.delta':
        return this.#speaker.play(samplesOf(message.delta));
      case 'session.started':
        return this.#started(message);
      case 'session.closed':
        this.#isEnding = true;
        return this.#tell('The call is over.');
      case 'error':
        return notify(sentence(message.error.message));
    }
  }

  #started({ session, resume_token }) {
    const isBack = session.id === this.session;
    this.session = session.id;
    this.#token = resume_token;
    this.#lostAt = 0;
    this.#tell(isBack ? 'You are on the line again.' : 'You are on the line.');
    this.#show();
    if (!isBack) this.#sessions.watch(session.id);
  }

  #say(samples) {
    const socket = this.#socket;
    if (!this.session || socket?.readyState !== WebSocket.OPEN) return;
    if (socket.bufferedAmount > mostBuffered) return;
    const audio = textOf(this.#isMuted ? new Int16Array(samples.length) : samples);
    this.#send({ type: 'session.input_audio.append', audio });
  }

  // Whether it could be sent.
  #send(message) {
    const isOpen = this.#socket.readyState === WebSocket.OPEN;
    if (isOpen) this.#socket.send(JSON.stringify(message));
    return isOpen;
  }

  #hangUp() {
    this.#isEnding = true;
    if (!this.#send({ type: 'session.close' })) this.#socket.close();
    if (this.#lostAt) this.#over();
  }

  async #closed() {
    if (this.#isEnding || !this.#stop) {
      this.#over();
    } else if (!this.session) {
      this.#over();
      await this.#tellWhy();
    } else {
      this.#comeBack();
    }
  }

  #comeBack() {
    this.#lostAt ||= Date.now();
    if (Date.now() - this.#lostAt > resumeMs) {
      this.#over();
      notify('The connection of your call was lost, and it could not go on.');
      return;
    }
    this.#tell('The connection is lost. Trying to come back to the call …');
    setTimeout(() => this.#lostAt && this.#connect(this.#token), againMs);
  }

  async #tellWhy() {
    const { text, isKey } = await whyRefused();
    if (isKey) await askForKeys(`To talk to the agent give a client key. ${text}`);
    else notify(text);
  }

  #mute(isMuted) {
    this.#isMuted = isMuted;
    byId('mute').setAttribute('aria-pressed', isMuted);
    this.#tell(isMuted ? 'You are on the line, and not heard.' : 'You are on the line.');
  }

  // All is let go.
  #over() {
    this.#stop?.();
    this.#stop = null;
    this.#socket = null;
    this.#speaker.close();
    this.session = '';
    this.#lostAt = 0;
    this.#isMuted = false;
    byId('mute').setAttribute('aria-pressed', false);
    byId('talk').disabled = false;
    this.#tell('');
    this.#show();
  }

  #tell(text) {
    byId('talk-text').textContent = text;
  }

  #show() {
    byId('talk').textContent = this.#stop ? 'Hang up' : 'Talk to the agent';
    byId('talk').classList.toggle('primary', !this.#stop);
    byId('mute').hidden = !this.session;
    byId('end-call').hidden = Boolean(this.session) && this.session === this.#sessions.watched;
  }
}
