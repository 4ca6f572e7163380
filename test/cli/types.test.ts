import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { type Daemon, startDaemon } from '../support/daemon.ts';
import { quarryFailing, quarryJson, quarryOn } from '../support/quarry.ts';

const PROJECT = '00000000000000000000000000000001';

let daemon: Daemon;

beforeAll(async () => {
  daemon = await startDaemon();
});
afterAll(async () => {
  await daemon?.stop();
});

const failing = (...args: string[]) => quarryFailing(daemon, ...args);

const lines = async (...args: string[]) => (await quarryOn(daemon, '-o', 'value', ...args)).trim().split('\n');

describe('quarry type', () => {
  test('makes, changes, shares and deletes types, and volumes of them', async () => {
    await quarryOn(daemon, 'type', 'create', 'gold', '--private', '--spec', 'tier=1', '--description', 'fast');
    expect(await quarryJson(daemon, 'type', 'show', 'gold')).toMatchObject({
      ...{ name: 'gold', description: 'fast', is_public: false, extra_specs: { tier: '1' }, projects: [] },
    });
    expect((await lines('type', 'list', '-c', 'name')).sort()).toEqual(['__DEFAULT__', 'gold']);
    expect(await quarryJson(daemon, 'type', 'share', 'gold', 'p9')).toMatchObject({ projects: ['p9'] });
    expect(await quarryJson(daemon, 'type', 'unshare', 'gold', 'p9')).toMatchObject({ projects: [] });
    await quarryOn(daemon, 'type', 'set', 'gold', '--name', 'silver', '--public', '--spec', 'a=b', '--unset', 'tier');
    const shown = { name: 'silver', is_public: true, extra_specs: { a: 'b' } };
    expect(await quarryJson(daemon, 'type', 'show', 'silver')).toMatchObject(shown);
    await quarryOn(daemon, 'type', 'set', 'silver', '--unset', 'a');
    await quarryOn(daemon, 'volume', 'create', 'one', '--size', '1', '--type', 'silver');
    expect(await quarryJson(daemon, 'volume', 'show', 'one')).toMatchObject({ volume_type: 'silver' });
    expect((await failing('type', 'delete', 'silver')).code).toBe(4);
    await quarryOn(daemon, 'volume', 'delete', 'one');
    await quarryOn(daemon, 'type', 'delete', 'silver');
    expect(await failing('type', 'show', 'silver')).toEqual({
      code: 3,
      stderr: 'quarry: Volume type silver could not be found.\n',
    });
    expect((await failing('type', 'create', 'x', '--public', '--private')).code).toBe(2);
    expect((await failing('type', 'set', '__DEFAULT__')).code).toBe(2);
  });
});

describe('quarry qos', () => {
  test('makes, changes, associates and deletes specs', async () => {
    await quarryOn(daemon, 'type', 'create', 'slow');
    await quarryOn(daemon, 'qos', 'create', 'q', '--consumer', 'both', '--spec', 'total_iops_sec=100');
    const changed = ['--spec', 'read_iops_sec=5', '--unset', 'total_iops_sec', '--consumer', 'back-end'];
    expect(await quarryJson(daemon, 'qos', 'set', 'q', ...changed)).toMatchObject({
      ...{ name: 'q', consumer: 'back-end', specs: { read_iops_sec: '5' }, associations: [] },
    });
    expect(await quarryJson(daemon, 'qos', 'associate', 'q', 'slow')).toMatchObject({
      associations: [{ name: 'slow' }],
    });
    expect(await lines('qos', 'list', '-c', 'name', '-c', 'specs')).toEqual(['q\tread_iops_sec=5']);
    expect((await failing('qos', 'delete', 'q')).code).toBe(4);
    expect(await quarryJson(daemon, 'qos', 'disassociate', 'q', 'slow')).toMatchObject({ associations: [] });
    await quarryOn(daemon, 'qos', 'associate', 'q', 'slow');
    expect(await quarryJson(daemon, 'qos', 'disassociate', 'q')).toMatchObject({ associations: [] });
    expect((await failing('qos', 'set', 'q', '--spec', 'read_iops_sec=fast')).stderr).toContain(
      "read_iops_sec is 'fast'",
    );
    await quarryOn(daemon, 'qos', 'delete', 'q', '--force');
    expect((await failing('qos', 'show', 'q')).code).toBe(3);
    await quarryOn(daemon, 'type', 'delete', 'slow');
  });
});

describe('quarry quota', () => {
  test('shows limits and use, sets them and takes them back', async () => {
    const show = async () => await quarryJson(daemon, 'quota', 'show', PROJECT);
    await quarryOn(daemon, 'volume', 'create', 'counted', '--size', '1');
    expect(await show()).toMatchObject({ volumes: { limit: -1, in_use: 1 } });
    await quarryOn(daemon, 'quota', 'set', PROJECT, '--limit', 'volumes=1', '--limit', 'gigabytes=none');
    expect(await show()).toMatchObject({ volumes: { limit: 1, in_use: 1 }, gigabytes: { limit: -1 } });
    expect((await failing('volume', 'create', 'more', '--size', '1')).code).toBe(4);
    expect((await failing('quota', 'set', PROJECT, '--limit', 'volumes=0')).stderr).toContain('Current usage is 1');
    expect((await failing('quota', 'set', PROJECT)).code).toBe(2);
    expect((await failing('quota', 'set', PROJECT, '--limit', 'volumes=some')).code).toBe(2);
    expect(await quarryJson(daemon, 'quota', 'show')).toMatchObject({ maxTotalVolumes: 1, totalVolumesUsed: 1 });
    await quarryOn(daemon, 'quota', 'delete', PROJECT);
    expect(await show()).toMatchObject({ volumes: { limit: -1 } });
    expect(await quarryJson(daemon, 'quota', 'default', '--limit', 'snapshots=7')).toMatchObject({ snapshots: 7 });
    expect(await quarryOn(daemon, 'quota', 'default')).toMatch(/^snapshots +7$/m);
    await quarryOn(daemon, 'quota', 'default', '--limit', 'snapshots=none');
    await quarryOn(daemon, 'volume', 'delete', 'counted');
  });
});
