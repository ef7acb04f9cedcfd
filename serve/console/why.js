// Browsers do not tell a page why a WebSocket was refused, and it can't be asked for in another way.
// So the same is asked for over WebRTC, whose requests are answered in words.
import { request } from './api.js';
import { authorization } from './keys.js';

const path = '/v1/realtime/calls';
const words = {
  at_capacity: 'The server is full.',
  draining: 'The server is about to end.',
  no_engine: 'The server has no engine at the moment.',
};

// Why the server has let no call in: { text, isKey }, where `isKey` says that another key may help.
export async function whyRefused() {
  const headers = { ...authorization('client'), 'Content-Type': 'application/sdp' };
  try {
    const call = await request(path, { method: 'POST', headers, body: await offer() });
    await request(`${call.headers.get('Location')}/hangup`, { method: 'POST', headers });
  } catch ({ status, code, message, retryAfterS }) {
    const again = retryAfterS ? ` Try again in ${Math.ceil(retryAfterS)} s.` : '';
    return { text: (words[code] ?? message) + again, isKey: status === 401 };
  }
  return { text: 'There was no room for your call, and now there is: try again.', isKey: false };
}

async function offer() {
  const connection = new RTCPeerConnection();
  connection.addTransceiver('audio');
  connection.createDataChannel('oai-events');
  const { sdp } = await connection.createOffer();
  connection.close();
  return sdp;
}
