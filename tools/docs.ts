/**
 * Writes the pages of docs/ that are made from tables in the code: errors, statuses, metrics, rules. With `--check` it writes
 * nothing and fails when a page is not what the tables say.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FAILURES } from '../src/base/errors.ts';
import { openMetrics } from '../src/base/metrics.ts';
import { POLICY } from '../src/control/policy.ts';
import { BACKUP, GROUP, GROUP_SNAPSHOT, NEEDS, SNAPSHOT, type Transition, VOLUME } from '../src/control/states.ts';

const DOCS = join(dirname(dirname(fileURLToPath(import.meta.url))), 'docs');
const MADE = '<!-- Made by tools/docs.ts from the tables in the code; edit those. -->';

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]): string =>
    `| ${cells.map((cell) => cell.replaceAll('|', '\\|')).join(' | ')} |`;
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n');
}

function errorsPage(): string {
  const rows = Object.entries(FAILURES).map(([code, { http, fault, exit, message }]) => [
    `\`${code}\``,
    http === null ? '–' : `${http} \`${fault}\``,
    String(exit),
    message === '{reason}' ? 'says what is wrong' : message,
  ]);
  return `${MADE}
# Errors

Every error has a code. The API answers with the HTTP status and, as the only key of the body, the fault:
\`{"itemNotFound": {"code": 404, "message": "…"}}\`. The command line ends with the exit code. \`{…}\` stands for a value.

${table(['code', 'HTTP', 'exit code', 'message'], rows)}

The API has a few answers of its own: 404 \`itemNotFound\` for paths and for routes that the microversion asked for does not
have, 406 \`computeFault\` for a microversion out of range, 413 \`overLimit\` for a body of more than \`body_bytes_max\` (114688), 415
\`badMediaType\` for a body that is not JSON; and 401, whose key is \`error\` as in the Identity API. Status 500 never says more than that something went wrong; the log does.
`;
}

function transitions(actions: Readonly<Record<string, Transition<string>>>): string {
  const word = (status: string | null): string => {
    if (status === null) return 'gone';
    if (status === 'by-attachments') return 'as its attachments say';
    return status === 'previous' ? 'as before' : `\`${status}\``;
  };
  const rows = Object.entries(actions).map(([action, { from, during, done, failed }]) => [
    action,
    from === 'any' ? 'any' : from.map((status) => `\`${status}\``).join(', ') || '–',
    during === null ? '–' : `\`${during}\``,
    word(done),
    during === null ? '–' : word(failed),
  ]);
  return table(['action', 'from', 'during', 'then', 'if it fails'], rows);
}

function statesPage(): string {
  const needs = Object.entries(NEEDS).map(([action, statuses]) => [
    action,
    statuses.map((status) => `\`${status}\``).join(', '),
  ]);
  return `${MADE}
# Statuses

An action is refused in any other status than those of its column "from": 400, or 409 for revert. The status changes
before the request is answered, and of two requests that race for one object only one is accepted. "–" in "during" means
that the change happens at once. After a crash every action under way goes on at the next start. "As its attachments say":
\`in-use\` while one is attached, else \`attaching\` while one has an export, else \`reserved\` while there is one, else
\`available\`. When an attachment ends while other work is under way, the work ends in the status that is right then.

## Volumes

${transitions(VOLUME)}

## Snapshots

${transitions(SNAPSHOT)}

## Groups

${transitions(GROUP)}

## Group snapshots

${transitions(GROUP_SNAPSHOT)}

## Backups

${transitions(BACKUP)}

## What needs a status and does not change it

${table(['action', 'status'], needs)}

\`os-reset_status\` sets any status an administrator asks for, except those that only work under way can end, and stops
no work.
`;
}

function policyPage(): string {
  const rows = Object.entries(POLICY).map(([rule, role]) => [`\`${rule}\``, `\`${role}\``]);
  return `${MADE}
# Rules

Who may do what, by the names that Block Storage services have for it. \`admin\` includes \`member\`, which includes
\`reader\`; \`manager\` counts as \`member\`. What has no rule here is for readers where it reads and for members where it
changes something. A refusal is 403 and names the rule. [authentication.md](authentication.md) says how a request gets its role.

${table(['rule', 'least role'], rows)}
`;
}

async function metricsPage(): Promise<string> {
  const { registry } = openMetrics({ processMetrics: false });
  const rows = (await registry.getMetricsAsJSON()).map(({ name, help, type }) => [`\`${name}\``, String(type), help]);
  return `${MADE}
# Metrics

\`GET /metrics\` answers in Prometheus' text format. Beside these there are the usual ones of a Node process, which begin
with \`quarry_process_\` and \`quarry_nodejs_\`.

${table(['name', 'type', 'meaning'], rows)}
`;
}

/** The exit code. */
export async function main(args: readonly string[]): Promise<number> {
  const isCheck = args.includes('--check');
  const pages = {
    'errors.md': errorsPage(),
    'states.md': statesPage(),
    'metrics.md': await metricsPage(),
    'policy.md': policyPage(),
  };
  let code = 0;
  for (const [name, text] of Object.entries(pages)) {
    const path = join(DOCS, name);
    if (existsSync(path) && readFileSync(path, 'utf8') === text) continue;
    if (!isCheck) writeFileSync(path, text);
    else {
      process.stderr.write(
        `docs/${name} is not what the tables in the code say: \`node tools/bootstrap.mjs run tools/docs.ts\`\n`,
      );
      code = 1;
    }
  }
  return code;
}
