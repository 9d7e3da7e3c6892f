// Compares what the suite found with a baseline, check by check, unscored scenarios and warnings included: the suite's
// own comparison leaves those out.
//
//   node judge.mjs LOG RESULTS BASELINE
//
// Prints each disagreement and "N passed, N failed, N skipped"; skipped are the failures that the baseline lists.
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";

const [log, results, baseline] = process.argv.slice(2);

const listed = new Set(
  [...readFileSync(baseline, "utf8").matchAll(/^ {2}- (\S+:\S+)$/gm)].map((match) => match[1]),
);
const ran = [...readFileSync(log, "utf8").matchAll(/^=== Running scenario: (\S+) ===$/gm)].map((match) => match[1]);

// The worst that each check came to, and what it said.
const found = new Map();
const reported = new Set();
const worse = ["SUCCESS", "WARNING", "FAILURE"];
for (const folder of readdirSync(results)) {
  const scenario = /^server-(.+)-\d{4}-\d\d-\d\dT/.exec(folder)?.[1];
  if (!scenario) continue;
  reported.add(scenario);
  for (const { id, status, errorMessage } of JSON.parse(readFileSync(join(results, folder, "checks.json"), "utf8"))) {
    const rank = worse.indexOf(status);
    const check = `${scenario}:${id}`;
    if (rank >= 0 && rank >= (found.get(check)?.rank ?? 0)) found.set(check, { rank, said: errorMessage });
  }
}

let passed = 0;
let skipped = 0;
const wrong = ran.filter((scenario) => !reported.has(scenario)).map((scenario) => `${scenario} ended without a report`);
if (ran.length === 0) wrong.push("the suite ran no scenario");
for (const [check, { rank, said }] of found) {
  if (rank === 0 && listed.has(check)) wrong.push(`${check} passes: take it out of ${baseline}`);
  else if (rank === 0) passed += 1;
  else if (listed.has(check)) skipped += 1;
  else wrong.push(`${check}: ${said ?? worse[rank]}`);
}
for (const check of listed) {
  if (!found.has(check)) wrong.push(`${check} was not run: take it out of ${baseline}`);
}
for (const line of wrong) console.log(`FAIL ${line}`);
console.log(`${passed} passed, ${wrong.length} failed, ${skipped} skipped`);
process.exit(wrong.length > 0 ? 1 : 0);
