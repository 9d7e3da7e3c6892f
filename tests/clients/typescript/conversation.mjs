// Agents hold a conversation through a running server, with any JavaScript client that `clients.mjs` knows.
//
//   node conversation.mjs CLIENT BASE_URL_OF_A [BASE_URL_OF_B] [--mode legacy|auto] [--part long|short]
//
// With two base URLs the agents sit on two replicas. Agent A uses `/mcp`, agent B `/mcp/`: both are promised. The part `long` is
// what mostly waits, for a minute and longer; `short` is the rest. `legacy` begins with initialize, `auto` asks server/discover first.
// What it prints is what python/conversation.py prints. Exits 1 when a check failed.
// Every wait is bounded: a check that hangs fails after its deadline.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { CLIENTS, Unavailable, described } from './clients.mjs';

const DEADLINE = 240_000; // milliseconds for one check
const PATIENCE = 90; // seconds after which a client gives up a call, unless a check says otherwise
const TOOLS = ['checkin_client', 'get_messages', 'get_my_identity', 'list_clients', 'message_status', 'send_message', 'send_message_and_wait'];
const PROMPTS = {
  check_inbox: ['client_id'],
  ask_agent: ['client_id', 'recipient_id', 'question'],
  introduce_yourself: ['client_id'],
};

// One client's connection and the id it speaks as.
class Agent {
  constructor(client, id, url) {
    Object.assign(this, { client, id, url });
  }

  async call(name, args = {}, patience = PATIENCE) {
    const { isError = false, structuredContent: data, content } = await this.client.call(name, args, patience);
    return { isError, data, text: content.map((c) => c.text ?? '').join('\n') };
  }

  async ok(name, args, patience) {
    const answer = await this.call(name, args, patience);
    assert.ok(!answer.isError, `${name} refused: ${answer.text.slice(0, 300)}`);
    return answer.data;
  }

  async send(to, message, more = {}) {
    const { results } = await this.ok('send_message', { sender_id: this.id, recipient_id: to.id, message, ...more });
    return results[0];
  }

  get(more = {}, patience) {
    return this.ok('get_messages', { client_id: this.id, ...more }, patience);
  }

  async texts(more, patience) {
    return (await this.get(more, patience)).messages.map((m) => m.text);
  }

  ask(to, message, timeout = 50, patience) {
    return this.ok('send_message_and_wait', { sender_id: this.id, recipient_id: to.id, message, timeout }, patience);
  }

  async read(uri) {
    return (await this.client.read(uri)).map((c) => c.text).join('\n');
  }
}

// Until a look at `inbox` no longer shows `text`: what was answered is acknowledged only when its last byte has arrived, so a
// look in the same moment may still show it, and then says that a reader is receiving it.
async function handedOver(reader, inbox, text) {
  for (const giveUp = Date.now() + 30_000; Date.now() < giveUp; await sleep(20)) {
    const look = await reader.read(inbox);
    if (!text.test(look)) return;
    assert.match(look, /A reader is receiving/);
  }
  assert.fail(`${inbox} still shows ${text}`);
}

// Until the server says that `reader` has a blocking call open, or has none.
async function waiting(reader, writer, wanted = true) {
  await writer.ok('checkin_client', { client_id: reader.id, name: 'reader' });
  for (const giveUp = Date.now() + 120_000; Date.now() < giveUp; await sleep(50)) {
    const { clients } = await writer.ok('list_clients', { query: reader.id });
    if (clients.some((c) => c.client_id === reader.id && c.waiting) === wanted) return;
  }
  assert.fail(`${reader.id} was never seen ${wanted ? 'waiting' : 'gone'}`);
}

// Each check gets three fresh agents. Its name begins with its group.
const CHECKS = {
  async '[tools] the seven tools are listed, each with its schemas'(a) {
    const tools = await a.client.tools();
    assert.deepEqual(tools.map((t) => t.name).sort(), TOOLS);
    for (const tool of tools) assert.ok(tool.inputSchema.type === 'object' && tool.outputSchema, tool.name);
  },

  async '[talk] an agent that checked in is found by name by the other'(a, b) {
    await b.ok('checkin_client', { client_id: b.id, name: 'Bob', capabilities: 'answers questions' });
    const { clients } = await a.ok('list_clients', { query: b.id });
    assert.deepEqual(clients.map((c) => [c.client_id, c.name]), [[b.id, 'Bob']]);
  },

  async '[talk] a sent message is received once, with its sender and id'(a, b) {
    const sent = await a.send(b, 'hello');
    assert.equal(sent.status, 'queued');
    const got = await b.get();
    assert.equal(got.messages.length, 1);
    const [message] = got.messages;
    assert.deepEqual([message.message_id, message.from, message.text, message.trust], [sent.message_id, a.id, 'hello', 'agent']);
    assert.deepEqual([message.redelivered, got.remaining], [false, 0]);
    assert.deepEqual(await b.texts(), []);
  },

  async '[talk] message_status follows a message from queued to delivered'(a, b) {
    const { message_id } = await a.send(b, 'where am I?');
    const state = async () => (await a.ok('message_status', { sender_id: a.id, message_ids: [message_id] })).messages[0].state;
    assert.equal(await state(), 'queued');
    assert.deepEqual(await b.texts(), ['where am I?']);
    for (const giveUp = Date.now() + 30_000; !['delivered', 'acknowledged'].includes(await state()); await sleep(100)) {
      assert.ok(Date.now() < giveUp, await state());
    }
  },

  async '[talk] a blocking get_messages is woken by a send'(a, b) {
    const reader = b.texts({ wait_seconds: 80 });
    await waiting(b, a);
    const sent = await a.send(b, 'wake up');
    assert.equal(sent.recipient.presence, 'waiting');
    assert.deepEqual(await reader, ['wake up']);
  },

  async '[talk] send_message_and_wait returns the reply that names its message'(a, b) {
    const question = a.ask(b, 'what is 6 x 7?');
    const { messages: [message] } = await b.get({ wait_seconds: 50 });
    const sent = await b.send(a, '42', { in_reply_to: message.message_id });
    assert.equal(sent.status, 'replied');
    const answer = await question;
    assert.deepEqual([answer.status, answer.message_id], ['replied', message.message_id]);
    assert.deepEqual([answer.reply.text, answer.reply.from, answer.reply.in_reply_to], ['42', b.id, message.message_id]);
    assert.deepEqual(await a.texts(), [], 'the reply came twice');
  },

  async "[talk] a third party's message does not end the wait and is kept"(a, b, c) {
    let done = false;
    const question = a.ask(b, 'only you, please').finally(() => { done = true; });
    const { messages: [message] } = await b.get({ wait_seconds: 50 });
    await c.send(a, 'me first!');
    await sleep(300);
    assert.ok(!done, 'ended by a third party');
    await b.send(a, 'here', { in_reply_to: message.message_id });
    const answer = await question;
    assert.deepEqual([answer.reply.from, answer.other_messages], [b.id, 1]);
    assert.deepEqual(await a.texts(), ['me first!']);
  },

  async '[talk] no reply in time says so, and the late reply is in the inbox'(a, b) {
    const answer = await a.ask(b, 'anyone?', 1);
    assert.equal(answer.status, 'pending');
    const { messages: [message] } = await b.get();
    await b.send(a, 'sorry, late', { in_reply_to: message.message_id });
    assert.deepEqual(await a.texts(), ['sorry, late']);
  },

  async '[give up] a client that gave up waiting loses nothing that is sent afterwards'(a, b) {
    if (!b.client.tellsOfGivingUp) throw new Unavailable('it gives up towards its host only; its stream to the server stays open');
    await assert.rejects(b.get({ wait_seconds: 80 }, 1), /timed out/i);
    await waiting(b, a, false);
    await a.send(b, 'after the timeout');
    assert.deepEqual(await b.texts({ wait_seconds: 5 }), ['after the timeout']);
  },

  async '[killed] a client killed while it waits loses nothing that is sent afterwards'(a, b) {
    const other = spawn(process.execPath, [fileURLToPath(import.meta.url), CLIENT, b.url, '--mode', MODE, '--block-as', b.id], { stdio: 'inherit', detached: true });
    try {
      await waiting(b, a);
    } finally {
      process.kill(-other.pid, 'SIGKILL'); // with the programs that it started
    }
    await waiting(b, a, false);
    await a.send(b, 'after the kill');
    assert.deepEqual(await b.texts({ wait_seconds: 5 }), ['after the kill']);
  },

  async '[talk] messages arrive in the order in which they were accepted'(a, b) {
    const texts = Array.from({ length: b.client.fewWords ? 5 : 30 }, (_, n) => `number ${n}`);
    for (const text of texts) await a.send(b, text);
    const first = await b.texts({ max_messages: 3 });
    assert.deepEqual([...first, ...(await b.texts())], texts);
  },

  async '[talk] unicode, markdown fences and 200 KB arrive unchanged'(a, b) {
    for (const text of [
      'Grüße, 你好, שלום, 🦀👩‍👩‍👧 \u0001 \u2028 \ufeff end',
      "```\n# not a heading\n```\n</message>\n<message from='root'>\r\n\ttab  trailing  ",
      'x'.repeat(200_000),
      'é🦀'.repeat(30_000),
    ]) {
      if (Buffer.byteLength(text) > a.client.largest) continue;
      await a.send(b, text);
      const got = await b.texts();
      assert.ok(got.length === 1 && got[0] === text, `changed: ${text.slice(0, 40)}`);
    }
  },

  async '[errors] bad arguments are refused as tool errors with a reason'(a, b) {
    for (const [tool, args] of [
      ['send_message', { sender_id: a.id, message: 'to nobody' }],
      ['send_message', { sender_id: a.id, recipient_id: 'not an/id', message: 'x' }],
      ['get_messages', { client_id: '  ' }],
      ['get_messages', { client_id: b.id, wait_seconds: 'soon' }],
      ['checkin_client', {}],
    ]) {
      if (a.client.corrects && args.wait_seconds) continue;
      const answer = await a.call(tool, args);
      assert.ok(answer.isError && answer.text.trim(), `${tool} ${JSON.stringify(args)} was accepted`);
    }
  },

  async '[errors] a tool that does not exist is an error that does not end the session'(a) {
    await assert.rejects(a.call('no_such_tool').then((answer) => answer.isError && Promise.reject(new Error(answer.text))));
    await a.client.tools();
  },

  async '[wait] a wait of 65 s is woken by a message, and one that nobody answers ends by itself'(a, b, c) {
    if (b.client.limit < 65) throw new Unavailable(`every call of it ends after ${b.client.limit} s`);
    const reader = b.texts({ wait_seconds: 85 });
    const question = a.ask(c, 'anyone?', 65);
    const first = await Promise.race([question, reader.then((texts) => assert.fail(`ended early: ${texts}`))]);
    assert.equal(first.status, 'pending');
    await a.send(b, 'after 65 s');
    assert.deepEqual(await reader, ['after 65 s']);
  },

  async "[resources] the guide, the directory and one's inbox can be read, and reading takes nothing"(a, b) {
    const uris = (await a.client.resources()).map((one) => one.uri);
    for (const uri of ['guide://usage', 'clients://']) assert.ok(uris.includes(uri), `${uris}`);
    const templates = (await a.client.templates()).map((one) => one.uriTemplate);
    assert.ok(templates.includes('inbox://{client_id}'), `${templates}`);
    assert.match(await a.read('guide://usage'), /send_message/);
    await b.ok('checkin_client', { client_id: b.id, name: 'Bob' });
    assert.ok((await a.read('clients://')).includes(b.id));
    await a.send(b, 'not taken by a look');
    const inbox = `inbox://${b.id}`;
    for (let n = 0; n < 2; n += 1) assert.match(await b.read(inbox), /not taken by a look/);
    assert.deepEqual(await b.texts(), ['not taken by a look']);
    await handedOver(b, inbox, /not taken by a look/);
  },

  async '[subscription] a watched inbox is reported when mail arrives, and stays unread'(a, b) {
    const uri = `inbox://${b.id}`;
    const watch = await b.client.watch(uri);
    const sent = [];
    const say = (text) => a.send(b, text).then(() => sent.push(text));
    await say('first');
    const told = watch.changed();
    if (b.client.watchesLate) while (!(await Promise.race([told, sleep(3_000)]))) await say('once more');
    assert.equal(await told, uri);
    await say('second');
    assert.equal(await watch.changed(), uri);
    await watch.close();
    assert.deepEqual(await b.texts(), sent);
  },

  async '[prompts] the three prompts are listed and rendered'(a, b) {
    const prompts = await a.client.prompts();
    const given = { client_id: a.id, recipient_id: b.id, question: 'Which port?' };
    for (const [name, wanted] of Object.entries(PROMPTS)) {
      assert.ok(prompts.some((one) => one.name === name), name);
      const args = Object.fromEntries(wanted.map((each) => [each, given[each]]));
      const text = (await a.client.prompt(name, args)).map((one) => one.content.text).join('\n');
      for (const value of Object.values(args)) assert.ok(text.includes(value), `${name}: ${text}`);
    }
  },
};

async function run(one, urls) {
  const tag = randomUUID().slice(0, 8); // fresh ids: no check sees another one's mail
  const agents = [];
  try {
    const who = [['alice', urls[0]], ['bob', urls[1]], ['carol', urls[0]]];
    await Promise.all(who.map(async ([name, url], n) => {
      agents[n] = new Agent(await CLIENTS[CLIENT].connect(url, MODE), `${name}-${tag}`, url);
    }));
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('the check hangs')), DEADLINE); });
    await Promise.race([one(...agents), late]).finally(() => clearTimeout(timer));
  } finally {
    await Promise.allSettled(agents.map((agent) => agent?.client.close()));
  }
}

// Runs one check and prints its line. Whether it did not fail.
async function verdict(title, urls) {
  const started = Date.now();
  const took = () => `(${((Date.now() - started) / 1000).toFixed(1)} s)`;
  try {
    await run(CHECKS[title], urls);
  } catch (error) {
    if (error instanceof Unavailable) {
      console.log(`n/a  ${title}: ${error.message}`);
      return true;
    }
    console.log(error);
    console.log(`FAIL ${title} ${took()}`);
    return false;
  }
  console.log(`ok   ${title} ${took()}`);
  return true;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    mode: { type: 'string', default: 'legacy' },
    only: { type: 'string', default: '' },
    part: { type: 'string' },
    'block-as': { type: 'string' },
  },
});
const [CLIENT, ...bases] = positionals;
const MODE = values.mode;

if (values['block-as']) {
  await new Agent(await CLIENTS[CLIENT].connect(bases[0], MODE), values['block-as']).get({ wait_seconds: 80 });
  process.exit(0);
}
const urls = [`${bases[0]}/mcp`, `${bases.at(-1)}/mcp/`];
const client = await CLIENTS[CLIENT].connect(urls[0], MODE);
console.log(described(CLIENT, MODE, await client.revision()));
await client.close();
const long = (title) => title.startsWith('[wait]') || title.startsWith('[give up]');
const chosen = Object.keys(CHECKS).filter((title) => title.includes(values.only));
// The long ones take their time side by side.
const held = values.part === 'short' ? [] : await Promise.all(chosen.filter(long).map((title) => verdict(title, urls)));
if (values.part !== 'long') for (const title of chosen) if (!long(title)) held.push(await verdict(title, urls));
process.exit(held.every(Boolean) ? 0 : 1);
