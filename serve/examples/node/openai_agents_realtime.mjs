// A call of an agent of OpenAI's Agents SDK for Node over the Realtime API.
import { RealtimeAgent, RealtimeSession, tool } from '@openai/agents-realtime';
import { z } from 'zod';
import { Caller, apiKey, commandLine, instructions } from './caller.mjs';

const [url, recording, heard] = commandLine();
const caller = new Caller(recording, heard);
const orderStatus = tool({
  name: 'order_status',
  description: 'Looks up where an order is.',
  parameters: z.object({ order_id: z.string() }),
  execute: (order) => caller.orderStatus(order),
});
const agent = new RealtimeAgent({ name: 'shop', instructions, tools: [orderStatus] });
const session = new RealtimeSession(agent, { transport: 'websocket', model: 'nano' });

session.on('audio', ({ data }) => caller.hears(Buffer.from(data)));
session.on('audio_interrupted', () => caller.tell('interrupted'));
session.on('error', ({ error }) => caller.tell('error', { message: JSON.stringify(error) }));
session.on('transport_event', (event) => {
  if (event.type === 'response.output_audio_transcript.delta') {
    caller.tell('agent_text', { text: event.delta });
  }
});
await session.connect({ apiKey, url: `${url.replace(/^http/, 'ws')}/v1/realtime?model=nano` });
caller.tell('connected');
for await (const audio of caller.says()) {
  session.sendAudio(audio.buffer.slice(audio.byteOffset, audio.byteOffset + audio.length));
}
session.close();
caller.hangsUp();
