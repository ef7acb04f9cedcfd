// What was said in the watched call, in writing.
import { byId, clock, element } from './dom.js';

const most = 200; // lines

export function startTranscript(feed, sessions, timeline) {
  const list = byId('transcript');
  let recording = null;
  let shown = []; // the texts of the lines
  const show = () => {
    const isAtEnd = list.scrollTop + list.clientHeight > list.scrollHeight - 8;
    const lines = recording.lines.slice(-most);
    const texts = lines.map(({ who, ms, text }) => `${clock(ms)} ${who} ${text}`);
    while (list.children.length > lines.length) list.lastChild.remove();
    for (const [place, line] of lines.entries()) {
      if (texts[place] === shown[place]) continue;
      const made = lineOf(line);
      if (list.children[place]) list.children[place].replaceWith(made);
      else list.append(made);
    }
    shown = texts;
    if (isAtEnd) list.scrollTop = list.scrollHeight;
  };
  sessions.onChange(() => {
    if (recording === timeline.recording) return;
    recording = timeline.recording;
    show();
  });
  feed.on('frame', ({ caller_text, agent_text }) => (caller_text || agent_text) && show());
}

function lineOf({ who, ms, text }) {
  const name = element('strong', {}, who === 'agent' ? 'Agent' : 'Caller');
  const said = element('span', {}, text.trim());
  return element('li', { class: who }, element('time', {}, clock(ms)), name, said);
}
