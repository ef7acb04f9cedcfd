// A call with OpenAI's Node SDK over the Live API: sound both ways all the time, no turns.
import OpenAI from 'openai';
import { LiveWS } from 'openai/resources/live/ws';
import { Caller, apiKey, commandLine, instructions, orderStatusTool } from './caller.mjs';

const [url, recording, heard] = commandLine();
const caller = new Caller(recording, heard);
const connection = new LiveWS(new OpenAI({ apiKey, baseURL: `${url}/v1` }));
const session = {
  model: 'nano',
  instructions,
  audio: { format: { type: 'audio/pcm', rate: 24_000 } },
  delegation: { type: 'responses', responses: { model: 'nano', tools: [orderStatusTool] } },
};

connection.socket.on('open', () => connection.send({ type: 'session.start', session }));
connection.on('session.started', async () => {
  caller.tell('connected');
  for await (const audio of caller.says()) {
    connection.send({ type: 'session.input_audio.append', audio: audio.toString('base64') });
  }
  connection.send({ type: 'session.close' });
});
connection.on('session.output_audio.delta', ({ delta }) => {
  caller.hears(Buffer.from(delta, 'base64'));
});
connection.on('session.output_transcript.delta', ({ delta }) => {
  caller.tell('agent_text', { text: delta });
});
connection.on('session.input_transcript.delta', ({ delta }) => {
  caller.tell('user_text', { text: delta });
});
connection.on('response.event', ({ event }) => {
  if (event.type !== 'response.output_item.done' || event.item.type !== 'function_call') return;
  const output = caller.orderStatus(JSON.parse(event.item.arguments));
  const item = { type: 'function_call_output', call_id: event.item.call_id, output };
  connection.send({ type: 'response.item.create', item });
  connection.send({ type: 'response.create' });
});
connection.on('error', ({ message }) => caller.tell('error', { message }));
connection.on('session.closed', () => {
  connection.close();
  caller.hangsUp();
});
