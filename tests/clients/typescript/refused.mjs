// What a JavaScript client makes of one refused call, behind `refusals.py`; docs/reliability.md builds on it.
//
//   node refused.mjs CLIENT BASE_URL --mode legacy|auto
//
// What it prints is what python/refused.py prints.

import { randomUUID } from 'node:crypto';
import { parseArgs } from 'node:util';
import { CLIENTS } from './clients.mjs';

const PATIENCE = 10; // seconds for one call
// What the first call comes to, and whether the next one works.
const PASSES = 'raises, and the next call works';
const SHOWS = 'shows it, and the next call works';
const SAYS = { 429: PASSES, 503: PASSES, tool: SHOWS };

const { values, positionals: [name, base] } = parseArgs({ allowPositionals: true, options: { mode: { type: 'string', default: 'auto' } } });
let held = true;
for (const [how, wanted] of Object.entries(SAYS)) {
  const client = await CLIENTS[name].connect(`${base}/${how}/${randomUUID()}/mcp`, values.mode);
  let first;
  let words;
  try {
    const { isError, content } = await client.call('list_clients', {}, PATIENCE);
    words = content.map((part) => part.text ?? '').join('\n');
    first = isError && words.includes('Try again in') ? 'shows it' : 'passes over it';
  } catch (error) {
    [first, words] = ['raises', `${error.name}: ${error.message}`];
  }
  const works = await client.call('list_clients', {}, PATIENCE).then((answer) => !answer.isError, () => false);
  const found = `${first}, and the next call ${works ? 'works' : 'fails'}`;
  words = words.replaceAll(/\s+/g, ' ');
  if (found === wanted) console.log(`ok   [refused] ${how}: ${found} (${words.slice(0, 160)})`);
  else {
    console.log(`FAIL [refused] ${how}: ${found}; documented: ${wanted} (${words.slice(0, 400)})`);
    held = false;
  }
  await client.close();
}
process.exit(held ? 0 : 1);
