// How the server does: who is on the line, and how late answers are.
import { byId, element } from './dom.js';

const most = 120; // seconds
const figures = {
  sessions: 'Sessions',
  latency_ms_p50: 'Latency, median',
  latency_ms_p99: 'Latency, 99 %',
  late_share: 'Late frames',
  capacity_refused: 'Turned away',
};

export function startLoad(feed) {
  const places = {};
  for (const [name, title] of Object.entries(figures)) {
    places[name] = element('dd', {}, '–');
    byId('load').append(element('div', {}, element('dt', {}, title), places[name]));
  }
  const history = [];
  feed.on('load', (load) => {
    for (const name of Object.keys(figures)) places[name].textContent = written(name, load[name]);
    byId('load').dataset.down = !load.engine_up;
    history.push(load);
    if (history.length > most) history.shift();
    show(history);
  });
  feed.on('lost', () => Object.values(places).forEach((place) => (place.textContent = '–')));
}

function written(name, value) {
  if (value === null || value === undefined) return '–';
  if (name.startsWith('latency')) return `${value.toFixed(value < 10 ? 1 : 0)} ms`;
  return name === 'late_share' ? `${(100 * value).toFixed(1)} %` : String(value);
}

function show(history) {
  const values = history.map((load) => load.latency_ms_p99 ?? 0);
  const top = Math.max(80, ...values);
  for (const share of ['p50', 'p99']) {
    const points = history.map((load, place) => {
      const y = 39 - (37 * (load[`latency_ms_${share}`] ?? 0)) / top;
      return `${place + most - history.length},${y.toFixed(1)}`;
    });
    byId('spark').querySelector(`.${share}`).setAttribute('points', points.join(' '));
  }
  const last = history.at(-1);
  byId('spark-text').textContent = last.engine_up
    ? `Latency of the last two minutes, up to ${Math.round(top)} ms`
    : 'No engine serves at the moment: nobody is let in.';
}
