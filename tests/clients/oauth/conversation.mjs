// People log in with the OAuth clients of the official TypeScript SDK, 2.x and 1.x, and talk to each other.
//
//   node conversation.mjs SERVER_URL ISSUER
//
// As conversation.py, for the same server and authorization server; and what that one issues beside access tokens is tried too.

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import * as second from '@modelcontextprotocol/client';
import { UnauthorizedError } from '@modelcontextprotocol/sdk/client/auth.js';
import { Client } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

const DEADLINE = 60_000; // milliseconds for one check
const CALLBACK = 'http://127.0.0.1:9/callback'; // nobody has to be there: the browser stops before it
const [url, issuer] = process.argv.slice(2);

const versionOf = (name) => JSON.parse(readFileSync(join(dirname(import.meta.filename), 'node_modules', name, 'package.json'), 'utf8')).version;
const SDKS = [
  { ...second, name: '@modelcontextprotocol/client' },
  { Client, StreamableHTTPClientTransport, UnauthorizedError, name: '@modelcontextprotocol/sdk' },
];

// A person at a browser, who logs in and agrees: where the way back leads.
async function logIn(person, start) {
  const cookies = new Map();
  const visit = async (url, options = {}) => {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join('; ');
    const page = await fetch(url, { ...options, redirect: 'manual', headers: { cookie, ...options.headers } });
    for (const line of page.headers.getSetCookie()) {
      const [name, value] = line.split(';')[0].split('=');
      if (value) cookies.set(name, value);
      else cookies.delete(name);
    }
    return page;
  };
  let at = new URL(start);
  for (let steps = 0; steps < 10; steps++) {
    let page = await visit(at);
    if (page.status === 200) {
      const [, action] = /action="([^"]+)"/.exec(await page.text());
      page = await visit(new URL(action, at), { method: 'POST', body: new URLSearchParams({ login: person }) });
    }
    assert.ok([302, 303].includes(page.status), `${page.status}`);
    at = new URL(page.headers.get('location'), at);
    if (at.href.startsWith(CALLBACK)) return at.searchParams;
  }
  throw new Error('no way back from the login');
}

// What a client keeps, and the person before it.
class Person {
  logins = 0;
  redirectUrl = CALLBACK;
  clientMetadata = {
    client_name: 'conversation',
    redirect_uris: [CALLBACK],
    grant_types: ['authorization_code', 'refresh_token'],
    response_types: ['code'],
    token_endpoint_auth_method: 'none',
  };

  constructor(name) {
    this.name = name;
  }

  state() {
    this.lastState = randomUUID();
    return this.lastState;
  }

  clientInformation() {
    return this.client;
  }

  saveClientInformation(client) {
    this.client = client;
  }

  tokens() {
    return this.kept;
  }

  saveTokens(tokens) {
    this.kept = tokens;
  }

  saveCodeVerifier(verifier) {
    this.verifier = verifier;
  }

  codeVerifier() {
    return this.verifier;
  }

  async redirectToAuthorization(where) {
    this.logins += 1;
    this.asked = where.searchParams;
    this.cameBack = await logIn(this.name, where);
    assert.equal(this.cameBack.get('state'), this.lastState);
  }
}

// A connection of a person. A call that needs a login is made again after it, as a host does.
class Agent {
  static async of(name, sdk) {
    const self = new this();
    Object.assign(self, { sdk, person: new Person(name) });
    await self.withLogin(async () => {
      self.transport = new sdk.StreamableHTTPClientTransport(new URL(url), { authProvider: self.person });
      self.client = new sdk.Client({ name: 'conversation', version: '1' });
      await self.client.connect(self.transport);
    });
    return self;
  }

  async withLogin(act) {
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof this.sdk.UnauthorizedError)) throw error;
      const { cameBack } = this.person;
      await this.transport.finishAuth(this.sdk === SDKS[0] ? cameBack : cameBack.get('code'));
      return act();
    }
  }

  async call(name, args = {}) {
    const { isError, structuredContent, content } = await this.withLogin(() => this.client.callTool({ name, arguments: args }));
    assert.ok(!isError, JSON.stringify(content));
    return structuredContent;
  }

  close() {
    return this.client.close();
  }
}

// Those that the server spoke of: some clients ask for refresh tokens beside them.
const mailbox = (scopes) => scopes.split(' ').filter((scope) => scope.startsWith('mailbox:')).sort();

async function gathered(sdk, names, act) {
  const agents = [];
  try {
    for (const name of names) agents.push(await Agent.of(name, sdk));
    await act(...agents);
  } finally {
    for (const agent of agents) await agent.close();
  }
}

const CHECKS = {
  'two people log in and talk, each with a token of its own': (sdk) =>
    gathered(sdk, ['alice', 'bob'], async (alice, bob) => {
      assert.equal(alice.person.logins, 1);
      assert.equal(alice.person.asked.get('resource'), url);
      assert.deepEqual(mailbox(alice.person.asked.get('scope')), ['mailbox:read', 'mailbox:send']);
      await bob.call('get_messages');
      const sent = await alice.call('send_message', { recipient_id: 'bob', message: 'hello' });
      assert.equal(sent.results[0].status, 'queued');
      const got = (await bob.call('get_messages')).messages;
      assert.deepEqual(got.map((m) => [m.from, m.text, m.verified_sender]), [['alice', 'hello', true]]);
      const asked = alice.call('send_message_and_wait', { recipient_id: 'bob', message: 'well?', timeout: 30 });
      const [question] = (await bob.call('get_messages', { wait_seconds: 30 })).messages;
      await bob.call('send_message', { recipient_id: 'alice', message: 'yes', in_reply_to: question.message_id });
      assert.equal((await asked).reply.text, 'yes');
    }),

  "a token is one's own name and its windows, and nobody else's": (sdk) =>
    gathered(sdk, ['alice'], async (alice) => {
      const me = await alice.call('get_my_identity');
      assert.deepEqual([me.client_id, me.verified], ['alice', true]);
      const foreign = await alice.client.callTool({ name: 'get_messages', arguments: { client_id: 'bob' } });
      assert.ok(foreign.isError && foreign.content[0].text.includes('use alice'), JSON.stringify(foreign));
      await alice.call('send_message', { recipient_id: 'alice.laptop', message: 'to myself' });
      const got = await alice.call('get_messages', { client_id: 'alice.laptop' });
      assert.deepEqual(got.messages.map((m) => m.text), ['to myself']);
    }),

  'a call that needs another scope asks for it, and keeps what was given': (sdk) =>
    gathered(sdk, [`carol-${randomUUID()}`], async (carol) => {
      assert.deepEqual(mailbox(carol.person.kept.scope), ['mailbox:read']);
      assert.deepEqual((await carol.call('get_messages')).messages, []);
      const sent = await carol.call('send_message', { recipient_id: 'dave', message: 'now I may' });
      assert.equal(sent.results[0].status, 'queued');
      assert.equal(carol.person.logins, 2);
      assert.deepEqual((await carol.call('get_messages')).messages, []);
      assert.equal(carol.person.logins, 2);
    }),
};

// Beside any SDK: what else the authorization server signs is no way in.
const RAW = {
  'an ID token of the same person for the same client is refused': async () => {
    const register = { redirect_uris: [CALLBACK], token_endpoint_auth_method: 'none', scope: 'openid mailbox:read' };
    const { registration_endpoint, authorization_endpoint, token_endpoint } = await (await fetch(`${issuer}/.well-known/openid-configuration`)).json();
    const json = { 'content-type': 'application/json' };
    const client = await (await fetch(registration_endpoint, { method: 'POST', headers: json, body: JSON.stringify(register) })).json();
    const verifier = randomUUID() + randomUUID();
    const digest = Buffer.from(await crypto.subtle.digest('SHA-256', Buffer.from(verifier))).toString('base64url');
    const ask = { response_type: 'code', client_id: client.client_id, redirect_uri: CALLBACK, scope: 'openid mailbox:read', code_challenge: digest, code_challenge_method: 'S256', resource: url, nonce: 'n' };
    const back = await logIn('alice', `${authorization_endpoint}?${new URLSearchParams(ask)}`);
    const redeem = { grant_type: 'authorization_code', code: back.get('code'), client_id: client.client_id, redirect_uri: CALLBACK, code_verifier: verifier, resource: url };
    const tokens = await (await fetch(token_endpoint, { method: 'POST', body: new URLSearchParams(redeem) })).json();
    const list = (token) =>
      fetch(url, { method: 'POST', headers: { ...json, authorization: `Bearer ${token}` }, body: JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'tools/list' }) });
    assert.equal((await list(tokens.access_token)).status, 200, 'its access token is good');
    const refused = await list(tokens.id_token);
    assert.equal(refused.status, 401, await refused.text());
    assert.match(refused.headers.get('www-authenticate'), /error="invalid_token"/);
  },
};

let failed = false;

async function run(what, who, check) {
  const began = Date.now();
  let word = 'ok  ';
  let timer;
  try {
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error('too late')), DEADLINE); });
    await Promise.race([check(), late]);
  } catch (error) {
    console.error(error);
    word = 'FAIL';
    failed = true;
  } finally {
    clearTimeout(timer);
  }
  console.log(`${word} [oauth, ${who}] ${what} (${((Date.now() - began) / 1000).toFixed(1)} s)`);
}

for (const sdk of SDKS) {
  for (const [what, check] of Object.entries(CHECKS)) await run(what, `${sdk.name} ${versionOf(sdk.name)}`, () => check(sdk));
}
for (const [what, check] of Object.entries(RAW)) await run(what, `oidc-provider ${versionOf('oidc-provider')}`, check);
process.exit(failed ? 1 : 0);
