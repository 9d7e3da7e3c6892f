// The clients, each behind the same few words: what `conversation.mjs` says, said with one library or program.
//
// A client that cannot do a thing throws `Unavailable` with the reason. `patience` is after how many seconds the client
// itself gives a call up, where that can be said.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { Client, StreamableHTTPClientTransport } from '@modelcontextprotocol/client';
import { StdioClientTransport } from '@modelcontextprotocol/client/stdio';
import { Client as Client1 } from '@modelcontextprotocol/sdk/client/index.js';
import { StreamableHTTPClientTransport as Transport1 } from '@modelcontextprotocol/sdk/client/streamableHttp.js';

export class Unavailable extends Error {}

const ABOUT = { name: 'conversation', version: '1' };
const modules = fileURLToPath(new URL('node_modules/', import.meta.url));
const versionOf = (name) => JSON.parse(readFileSync(join(modules, name, 'package.json'), 'utf8')).version;
const options = (patience) => ({ timeout: patience * 1000 });

// What the server says has changed, one at a time and in turn.
class Changes {
  uris = [];
  wake = () => {};

  add(uri) {
    this.uris.push(uri);
    this.wake();
  }

  async next() {
    while (!this.uris.length) await new Promise((resolve) => { this.wake = resolve; });
    return this.uris.shift();
  }
}

// The official SDK, 2.x. `mode` is its own word: legacy or auto.
class Sdk2 {
  static package = '@modelcontextprotocol/client';
  fewWords = false; // whether a call costs so much that a check makes do with fewer
  limit = Infinity; // seconds after which every call ends, whatever is said
  largest = Infinity; // bytes of one message that the client can take
  corrects = false; // whether it makes what the schema asks for of arguments that are something else
  watchesLate = false; // whether it says that it watches before it does
  tellsOfGivingUp = true; // whether the server learns that a call was given up

  static async connect(url, mode) {
    const self = new this();
    self.client = new Client(ABOUT, { versionNegotiation: { mode } });
    await self.client.connect(new StreamableHTTPClientTransport(new URL(url)));
    return self;
  }

  revision() {
    return this.client.getNegotiatedProtocolVersion();
  }

  close() {
    return this.client.close();
  }

  async tools() {
    return (await this.client.listTools()).tools;
  }

  call(name, args, patience) {
    return this.client.callTool({ name, arguments: args }, options(patience));
  }

  async resources() {
    return (await this.client.listResources()).resources;
  }

  async templates() {
    return (await this.client.listResourceTemplates()).resourceTemplates;
  }

  async read(uri) {
    return (await this.client.readResource({ uri })).contents;
  }

  async prompts() {
    return (await this.client.listPrompts()).prompts;
  }

  async prompt(name, args) {
    return (await this.client.getPrompt({ name, arguments: args })).messages;
  }

  // What says when the resource has changed, and how to stop watching.
  async watch(uri) {
    if (this.revision() < '2026') throw new Unavailable('no subscriptions/listen in this revision');
    const changes = new Changes();
    this.client.setNotificationHandler('notifications/resources/updated', ({ params }) => changes.add(params.uri));
    const subscription = await this.client.listen({ resourceSubscriptions: [uri] });
    return { changed: () => changes.next(), close: () => subscription.close() };
  }
}

class Sdk1 extends Sdk2 {
  static package = '@modelcontextprotocol/sdk';

  static async connect(url) {
    const self = new this();
    self.transport = new Transport1(new URL(url));
    self.client = new Client1(ABOUT);
    await self.client.connect(self.transport);
    return self;
  }

  revision() {
    return this.transport.protocolVersion;
  }

  call(name, args, patience) {
    return this.client.callTool({ name, arguments: args }, undefined, options(patience));
  }
}

// A bridge for hosts that only start programs: here such a host is the SDK, in the revision of such hosts.
class McpRemote extends Sdk2 {
  static package = 'mcp-remote';

  static async connect(url, mode) {
    const self = new this();
    const home = mkdtempSync(join(tmpdir(), 'mcp-remote-'));
    const transport = new StdioClientTransport({
      command: process.execPath,
      args: [join(modules, 'mcp-remote/dist/proxy.js'), url, '--protocol', mode],
      env: { ...process.env, MCP_REMOTE_CONFIG_DIR: home },
      stderr: 'pipe',
    });
    // Of a cancellation it makes a notification, which in the newer revision means nothing: there a closed stream is one.
    Object.assign(self, { client: new Client(ABOUT), home, mode, said: '', tellsOfGivingUp: mode === 'legacy', watchesLate: true });
    transport.stderr.on('data', (text) => { self.said += text; });
    await self.client.connect(transport, options(120)); // it starts slowly
    return self;
  }

  revision() {
    if (this.mode === 'legacy') return this.client.getNegotiatedProtocolVersion();
    return this.said.match(/speaks MCP (\S+);/)?.[1] ?? 'unknown';
  }

  async close() {
    await this.client.close();
    rmSync(this.home, { recursive: true, force: true });
  }

  // Its host subscribes in the old way, and it listens in the new one.
  async watch(uri) {
    if (this.mode === 'legacy') throw new Unavailable('no subscriptions/listen in this revision');
    const changes = new Changes();
    this.client.setNotificationHandler('notifications/resources/updated', ({ params }) => changes.add(params.uri));
    await this.client.subscribeResource({ uri });
    return { changed: () => changes.next(), close: () => this.client.unsubscribeResource({ uri }) };
  }
}

// A program for each call. Its answer is one line of JSON.
class Inspector {
  static package = '@modelcontextprotocol/inspector';
  fewWords = true;
  tellsOfGivingUp = true;
  corrects = true;
  limit = 60; // its command line reads `requestTimeout` of no configuration
  largest = 100_000; // one argument of a program is at most 128 KiB on Linux

  static async connect(url, mode) {
    const self = new this();
    Object.assign(self, { url, mode, home: mkdtempSync(join(tmpdir(), 'inspector-')) });
    return self;
  }

  async revision() {
    return (await this.run(['--method', 'initialize'])).protocolVersion;
  }

  close() {
    rmSync(this.home, { recursive: true, force: true });
  }

  async run(args) {
    const program = join(modules, '@modelcontextprotocol/inspector/clients/cli/build/index.js');
    // The transport is said because it is guessed from the URL only without a slash at its end.
    const where = ['--transport', 'http', this.url, '--protocol-era', this.mode];
    const child = spawn(process.execPath, [program, ...where, '--format', 'json', '--quiet', ...args], {
      env: { ...process.env, HOME: this.home },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const said = { stdout: '', stderr: '' };
    for (const stream of ['stdout', 'stderr']) child[stream].setEncoding('utf8').on('data', (text) => { said[stream] += text; });
    await new Promise((resolve, reject) => child.on('close', resolve).on('error', reject));
    if (said.stdout.trim()) return JSON.parse(said.stdout).result;
    throw new Error(said.stderr);
  }

  async tools() {
    return (await this.run(['--method', 'tools/list'])).tools;
  }

  call(name, args) {
    return this.run(['--method', 'tools/call', '--tool-name', name, '--tool-args-json', JSON.stringify(args)]);
  }

  async resources() {
    return (await this.run(['--method', 'resources/list'])).resources;
  }

  async templates() {
    return (await this.run(['--method', 'resources/templates/list'])).resourceTemplates;
  }

  async read(uri) {
    return (await this.run(['--method', 'resources/read', '--uri', uri])).contents;
  }

  async prompts() {
    return (await this.run(['--method', 'prompts/list'])).prompts;
  }

  async prompt(name, args) {
    const pairs = Object.entries(args).map(([key, value]) => `${key}=${value}`);
    return (await this.run(['--method', 'prompts/get', '--prompt-name', name, ...(pairs.length ? ['--prompt-args', ...pairs] : [])])).messages;
  }

  async watch() {
    throw new Unavailable('a program for each call has no streams');
  }
}

export const CLIENTS = { client: Sdk2, 'sdk-1': Sdk1, 'mcp-remote': McpRemote, inspector: Inspector };

// The line by which a run says who spoke: `tests/clients/table.py` reads it.
export function described(client, mode, revision) {
  const name = CLIENTS[client].package;
  return `client ${JSON.stringify({ package: name, version: versionOf(name), mode, language: 'TypeScript', revision })}`;
}
