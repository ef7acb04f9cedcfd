// An agent of OpenAI's Agents SDK for Node whose tools the server runs: it asks for one of the front
// desk's, and is asked whether each call may run.
//
//     python -m serve.run --config-name front_desk
import { hostedMcpTool } from '@openai/agents-core';
import { RealtimeAgent, RealtimeSession } from '@openai/agents-realtime';
import { Caller, apiKey, commandLine, instructions } from './caller.mjs';

const [url, recording, heard] = commandLine();
const caller = new Caller(recording, heard);
// The source is known to the server by its name: it goes to no address that a client names.
const frontDesk = hostedMcpTool({
  serverLabel: 'front_desk',
  serverUrl: 'https://unused.invalid',
  allowedTools: ['order_status'],
  requireApproval: 'always',
});
const agent = new RealtimeAgent({ name: 'shop', instructions, tools: [frontDesk] });
const session = new RealtimeSession(agent, { transport: 'websocket', model: 'nano' });

session.on('audio', ({ data }) => caller.hears(Buffer.from(data)));
session.on('error', ({ error }) => caller.tell('error', { message: JSON.stringify(error) }));
session.on('mcp_tools_changed', (tools) => caller.tell('tools', { names: tools.map((one) => one.name) }));
session.on('tool_approval_requested', (_context, _agent, { approvalItem }) => {
  caller.tell('asked', { name: approvalItem.rawItem.name });
  session.approve(approvalItem);
});
session.on('mcp_tool_call_completed', (_context, _agent, call) => {
  caller.tell('tool_call', { name: call.name, output: call.output });
});
await session.connect({ apiKey, url: `${url.replace(/^http/, 'ws')}/v1/realtime?model=nano` });
caller.tell('connected');
for await (const audio of caller.says()) {
  session.sendAudio(audio.buffer.slice(audio.byteOffset, audio.byteOffset + audio.length));
}
session.close();
caller.hangsUp();
