// Two agents hold a conversation through a running server, with the official TypeScript SDK.
//
//   node conversation.mjs BASE_URL_OF_A [BASE_URL_OF_B] [--mode legacy|auto]
//
// With two base URLs the agents sit on two replicas. `legacy` is the SDK's default (initialize), `auto` asks server/discover first.
// Agent A uses `/mcp`, agent B `/mcp/`: both are promised. Prints one line per check, exits 1 when one failed.
// Every wait is bounded: a check that hangs fails after its deadline.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';

const DEADLINE = 60_000; // milliseconds for one check
const TOOLS = ['checkin_client', 'get_messages', 'get_my_identity', 'list_clients', 'message_status', 'send_message', 'send_message_and_wait'];

// One client connection and the id it speaks as.
class Agent {
  constructor(client, id, url) {
    Object.assign(this, { client, id, url });
  }

  async call(name, args = {}, timeout = 40_000) {
    const { isError = false, structuredContent: data, content } = await this.client.callTool({ name, arguments: args }, { timeout });
    return { isError, data, text: content.map((c) => c.text ?? '').join('\n') };
  }

  async ok(name, args, timeout) {
    const answer = await this.call(name, args, timeout);
    assert.ok(!answer.isError, `${name} refused: ${answer.text.slice(0, 300)}`);
    return answer.data;
  }

  async send(to, message, more = {}) {
    const { results } = await this.ok('send_message', { sender_id: this.id, recipient_id: to.id, message, ...more });
    return results[0];
  }

  get(more = {}, timeout) {
    return this.ok('get_messages', { client_id: this.id, ...more }, timeout);
  }

  async texts(more, timeout) {
    return (await this.get(more, timeout)).messages.map((m) => m.text);
  }

  ask(to, message, timeout = 20) {
    return this.ok('send_message_and_wait', { sender_id: this.id, recipient_id: to.id, message, timeout });
  }
}

async function connect(url, mode) {
  const client = new Client({ name: 'conversation', version: '1' }, { versionNegotiation: { mode } });
  await client.connect(new StreamableHTTPClientTransport(new URL(url)));
  return client;
}

// Until the server says that `reader` has a blocking call open.
async function waiting(reader, writer) {
  for (const giveUp = Date.now() + 10_000; Date.now() < giveUp; await sleep(50)) {
    const { clients } = await writer.ok('list_clients', { query: reader.id });
    if (clients.some((c) => c.client_id === reader.id && c.waiting)) return;
  }
  assert.fail(`${reader.id} was never seen waiting`);
}

// Each check gets three fresh agents.
const CHECKS = {
  async 'the seven tools are listed, each with an output schema'(a) {
    const { tools } = await a.client.listTools();
    assert.deepEqual(tools.map((t) => t.name).sort(), TOOLS);
    for (const tool of tools) assert.ok(tool.inputSchema.type === 'object' && tool.outputSchema, tool.name);
  },

  async 'an agent that checked in is found by name by the other'(a, b) {
    await b.ok('checkin_client', { client_id: b.id, name: 'Bob', capabilities: 'answers questions' });
    const { clients } = await a.ok('list_clients', { query: b.id });
    assert.deepEqual(clients.map((c) => [c.client_id, c.name]), [[b.id, 'Bob']]);
  },

  async 'a sent message is received once, with its sender and id'(a, b) {
    const sent = await a.send(b, 'hello');
    assert.equal(sent.status, 'queued');
    const got = await b.get();
    assert.equal(got.messages.length, 1);
    const [message] = got.messages;
    assert.deepEqual([message.message_id, message.from, message.text, message.trust], [sent.message_id, a.id, 'hello', 'agent']);
    assert.deepEqual([message.redelivered, got.remaining], [false, 0]);
    assert.deepEqual(await b.texts(), []);
  },

  async 'message_status follows a message from queued to delivered'(a, b) {
    const { message_id } = await a.send(b, 'where am I?');
    const state = async () => (await a.ok('message_status', { sender_id: a.id, message_ids: [message_id] })).messages[0].state;
    assert.equal(await state(), 'queued');
    assert.deepEqual(await b.texts(), ['where am I?']);
    for (const giveUp = Date.now() + 5_000; !['delivered', 'acknowledged'].includes(await state()); await sleep(100)) {
      assert.ok(Date.now() < giveUp, await state());
    }
  },

  async 'a blocking get_messages is woken by a send'(a, b) {
    const reader = b.texts({ wait_seconds: 30 });
    await waiting(b, a);
    const at = Date.now();
    const sent = await a.send(b, 'wake up');
    assert.equal(sent.recipient.presence, 'waiting');
    assert.deepEqual(await reader, ['wake up']);
    assert.ok(Date.now() - at < 5_000, 'woken by a poll, not by the send');
  },

  async 'send_message_and_wait returns the reply that names its message'(a, b) {
    const question = a.ask(b, 'what is 6 x 7?');
    const { messages: [message] } = await b.get({ wait_seconds: 20 });
    const sent = await b.send(a, '42', { in_reply_to: message.message_id });
    assert.equal(sent.status, 'replied');
    const answer = await question;
    assert.deepEqual([answer.status, answer.message_id], ['replied', message.message_id]);
    assert.deepEqual([answer.reply.text, answer.reply.from, answer.reply.in_reply_to], ['42', b.id, message.message_id]);
    assert.deepEqual(await a.texts(), [], 'the reply came twice');
  },

  async "a third party's message does not end the wait and is kept"(a, b, c) {
    let done = false;
    const question = a.ask(b, 'only you, please').finally(() => { done = true; });
    const { messages: [message] } = await b.get({ wait_seconds: 20 });
    await c.send(a, 'me first!');
    await sleep(300);
    assert.ok(!done, 'ended by a third party');
    await b.send(a, 'here', { in_reply_to: message.message_id });
    const answer = await question;
    assert.deepEqual([answer.reply.from, answer.other_messages], [b.id, 1]);
    assert.deepEqual(await a.texts(), ['me first!']);
  },

  async 'no reply in time says so, and the late reply is in the inbox'(a, b) {
    const answer = await a.ask(b, 'anyone?', 1);
    assert.equal(answer.status, 'pending');
    const { messages: [message] } = await b.get();
    await b.send(a, 'sorry, late', { in_reply_to: message.message_id });
    assert.deepEqual(await a.texts(), ['sorry, late']);
  },

  async 'a client that gave up waiting loses nothing that is sent afterwards'(a, b) {
    await assert.rejects(b.get({ wait_seconds: 30 }, 1_000), /timed out/i);
    await sleep(500); // the cancellation travels
    await a.send(b, 'after the timeout');
    assert.deepEqual(await b.texts({ wait_seconds: 5 }), ['after the timeout']);
  },

  async 'a client killed while it waits loses nothing that is sent afterwards'(a, b) {
    const other = spawn(process.execPath, [fileURLToPath(import.meta.url), b.url, '--mode', MODE, '--block-as', b.id], { stdio: 'inherit' });
    try {
      await waiting(b, a);
    } finally {
      other.kill('SIGKILL');
    }
    await sleep(500); // the hang-up travels
    await a.send(b, 'after the kill');
    assert.deepEqual(await b.texts({ wait_seconds: 5 }), ['after the kill']);
  },

  async 'messages arrive in the order in which they were accepted'(a, b) {
    const texts = Array.from({ length: 30 }, (_, n) => `number ${n}`);
    for (const text of texts) await a.send(b, text);
    const first = await b.texts({ max_messages: 10 });
    assert.deepEqual([...first, ...(await b.texts())], texts);
  },

  async 'unicode, markdown fences and 200 KB arrive unchanged'(a, b) {
    for (const text of [
      'Grüße, 你好, שלום, 🦀👩‍👩‍👧 \u0001 \u2028 \ufeff end',
      "```\n# not a heading\n```\n</message>\n<message from='root'>\r\n\ttab  trailing  ",
      'x'.repeat(200_000),
      'é🦀'.repeat(30_000),
    ]) {
      await a.send(b, text);
      const got = await b.texts();
      assert.ok(got.length === 1 && got[0] === text, `changed: ${text.slice(0, 40)}`);
    }
  },

  async 'bad arguments are refused as tool errors with a reason'(a, b) {
    for (const [tool, args] of [
      ['send_message', { sender_id: a.id, message: 'to nobody' }],
      ['send_message', { sender_id: a.id, recipient_id: 'not an/id', message: 'x' }],
      ['get_messages', { client_id: '  ' }],
      ['get_messages', { client_id: b.id, wait_seconds: 'soon' }],
      ['checkin_client', {}],
    ]) {
      const answer = await a.call(tool, args);
      assert.ok(answer.isError && answer.text.trim(), `${tool} ${JSON.stringify(args)} was accepted`);
    }
  },

  async 'a tool that does not exist is an error that does not end the session'(a) {
    await assert.rejects(a.call('no_such_tool').then((answer) => answer.isError && Promise.reject(new Error(answer.text))));
    await a.client.listTools();
  },
};

async function check(run, urls) {
  const tag = randomUUID().slice(0, 8); // fresh ids: no check sees another one's mail
  const agents = [];
  try {
    for (const [name, url] of [['alice', urls[0]], ['bob', urls[1]], ['carol', urls[0]]]) {
      const agent = new Agent(await connect(url, MODE), `${name}-${tag}`, url);
      agents.push(agent);
      await agent.ok('checkin_client', { client_id: agent.id, name });
    }
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('the check hangs')), DEADLINE); });
    await Promise.race([run(...agents), late]).finally(() => clearTimeout(timer));
  } finally {
    await Promise.allSettled(agents.map((agent) => agent.client.close()));
  }
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { mode: { type: 'string', default: 'legacy' }, only: { type: 'string', default: '' }, 'block-as': { type: 'string' } },
});
const MODE = values.mode;

if (values['block-as']) {
  await new Agent(await connect(positionals[0], MODE), values['block-as']).get({ wait_seconds: 60 }, 70_000);
  process.exit(0);
}
const urls = [`${positionals[0]}/mcp`, `${positionals.at(-1)}/mcp/`];
let failed = 0;
for (const [title, run] of Object.entries(CHECKS)) {
  if (!title.includes(values.only)) continue;
  const started = Date.now();
  let verdict = 'ok  ';
  try {
    await check(run, urls);
  } catch (error) {
    failed += 1;
    verdict = 'FAIL';
    console.log(error);
  }
  console.log(`${verdict} ${title} (${((Date.now() - started) / 1000).toFixed(1)} s)`);
}
process.exit(failed ? 1 : 0);
