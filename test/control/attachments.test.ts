/**
 * What is done about attachments is interrupted at each of its steps, by a crash or a failing backend: afterwards every
 * export has its row and every row its export, the volume's status says what its attachments say, and everything can be
 * ended and deleted.
 */
import { describe, expect, test } from 'vitest';
import { allConnections, attachmentsOf } from '../../src/catalog/attachments.ts';
import { findVolume } from '../../src/catalog/volumes.ts';
import {
  attachVolume,
  detachVolume,
  initializeConnection,
  moveVolume,
  terminateConnection,
} from '../../src/control/attach-actions.ts';
import {
  completeAttachment,
  createAttachment,
  deleteAttachment,
  updateAttachment,
} from '../../src/control/attachments.ts';
import { statusByAttachments } from '../../src/control/states.ts';
import { resetVolume } from '../../src/control/volume-actions.ts';
import { deleteVolume } from '../../src/control/volumes.ts';
import { Interrupter } from './interrupt.ts';
import { allVolumes } from './rows.ts';
import { CALLER, World } from './world.ts';

const CONNECTOR = { host: 'compute1' };
const STEPS_MAX = 40;
/** Only ends what hangs: a test here waits for what a stopped world never does. */
const TIMEOUT_MS = 30_000;

type Scenario = {
  readonly prepare: (world: World, volume: string) => Promise<string>;
  readonly act: (world: World, about: { volume: string; attachment: string }) => Promise<unknown>;
  /** The volume's status and how many exports its attachments have, once it is done. */
  readonly done: readonly [status: string, exports: number];
  readonly before: readonly [status: string, exports: number];
};

const create = async (world: World, volumeId: string, connector: typeof CONNECTOR | null): Promise<string> => {
  const wanted = { volumeId, instanceId: null, connector, mode: null };
  return (await createAttachment(world.control, CALLER, wanted)).row.id;
};

const attached = async (world: World, volumeId: string): Promise<string> => {
  const id = await create(world, volumeId, CONNECTOR);
  await completeAttachment(world.control, CALLER, id);
  return id;
};

const attachOldWay = async (world: World, id: string): Promise<string> => {
  await moveVolume(world.control, CALLER, { id, action: 'reserve' });
  await initializeConnection(world.control, CALLER, { id, connector: CONNECTOR });
  const wanted = { id, instanceId: null, hostName: 'compute1', device: '/dev/vdb', mode: null };
  await attachVolume(world.control, CALLER, wanted);
  return '';
};

const SCENARIOS: Readonly<Record<string, Scenario>> = {
  'creating one with its connector': {
    prepare: async () => '',
    act: (world, { volume }) => create(world, volume, CONNECTOR),
    before: ['available', 0],
    done: ['attaching', 1],
  },
  'giving a reserved one its connector': {
    prepare: (world, volume) => create(world, volume, null),
    act: ({ control }, { attachment }) => updateAttachment(control, CALLER, { id: attachment, connector: CONNECTOR }),
    before: ['reserved', 0],
    done: ['attaching', 1],
  },
  'changing the mode of one': {
    prepare: (world, volume) => create(world, volume, CONNECTOR),
    act: ({ control }, { attachment }) =>
      updateAttachment(control, CALLER, { id: attachment, connector: { ...CONNECTOR, mode: 'ro' } }),
    before: ['attaching', 1],
    done: ['attaching', 1],
  },
  'deleting one': {
    prepare: attached,
    act: ({ control }, { attachment }) => deleteAttachment(control, CALLER, attachment),
    before: ['in-use', 1],
    done: ['available', 0],
  },
  'clearing them': {
    prepare: attached,
    act: ({ control }, { volume }) => resetVolume(control, CALLER, { id: volume, status: 'available', detach: true }),
    before: ['in-use', 1],
    done: ['available', 0],
  },
  'initializing a connection': {
    prepare: async () => '',
    act: ({ control }, { volume }) => initializeConnection(control, CALLER, { id: volume, connector: CONNECTOR }),
    before: ['available', 0],
    done: ['available', 1],
  },
  'terminating a connection': {
    prepare: async ({ control }, id) => {
      await moveVolume(control, CALLER, { id, action: 'reserve' });
      await initializeConnection(control, CALLER, { id, connector: CONNECTOR });
      return '';
    },
    act: ({ control }, { volume }) => terminateConnection(control, CALLER, { id: volume, connector: CONNECTOR }),
    before: ['attaching', 1],
    done: ['available', 0],
  },
  'detaching the old way': {
    prepare: attachOldWay,
    act: ({ control }, { volume }) => detachVolume(control, CALLER, { id: volume, attachmentId: null }),
    before: ['in-use', 1],
    done: ['available', 0],
  },
};

function unlisted(world: World): string[] {
  return [...world.backend.published()].filter(([, { isListed }]) => !isListed).map(([name]) => name);
}

/** Status and number of exports; and that names and rows are the same, with the modes that the rows say. */
async function found(world: World, volume: string): Promise<[string, number]> {
  const { reader } = world.control.catalog;
  const rows = await allConnections(reader);
  expect(unlisted(world).sort()).toEqual(rows.map(({ name }) => name).sort());
  for (const row of rows)
    expect(world.backend.published().get(row.name)).toMatchObject({
      targetId: volume,
      readOnly: row.read_only === 1,
    });
  const status = (await findVolume(reader, volume))?.status ?? 'gone';
  return [status, rows.length];
}

async function expectRemovable(world: World, volume: string): Promise<void> {
  const { control } = world;
  await resetVolume(control, CALLER, { id: volume, status: 'available', detach: true });
  await deleteVolume(control, CALLER, { id: volume, cascade: false, force: false });
  await control.tasks.idle();
  expect(await allVolumes(control.catalog.reader)).toEqual([]);
  expect([world.backend.ids(), [...world.backend.published()]]).toEqual([[], []]);
}

async function prepared(scenario: Scenario): Promise<{ world: World; about: { volume: string; attachment: string } }> {
  const world = await World.open();
  const volume = await world.volume();
  const attachment = await scenario.prepare(world, volume);
  expect(await found(world, volume)).toEqual(scenario.before);
  return { world, about: { volume, attachment } };
}

describe.each(Object.entries(SCENARIOS))('%s', { timeout: TIMEOUT_MS }, (_name, scenario) => {
  test('ends well after a crash at any step, a second one at the start included', async () => {
    const places: string[] = [];
    for (let at = 1; at < STEPS_MAX; at += 1) {
      const { world, about } = await prepared(scenario);
      await using _ = world;
      await world.crash();
      const interrupter = new Interrupter({ at, mode: 'crash' });
      await world.start({ ...interrupter, isStarted: false });
      const work = (async () => {
        await world.control.start();
        await scenario.act(world, about);
      })();
      await Promise.race([interrupter.reached, work]);
      if (!interrupter.isReached) {
        await work;
        expect(await found(world, about.volume)).toEqual(scenario.done);
        expect(places.length).toBeGreaterThan(2);
        return;
      }
      places.push(interrupter.where);
      await world.crash();
      await world.start();
      const [status, exports] = await found(world, about.volume);
      expect([scenario.before, scenario.done], `crash ${interrupter.where}`).toContainEqual([status, exports]);
      await expectRemovable(world, about.volume);
    }
    throw new Error(`more than ${STEPS_MAX} steps: ${places.join(', ')}`);
  });

  test('changes nothing when a call into the backend fails, and works when it is repeated', async () => {
    let failures = 0;
    for (let at = 1; at < STEPS_MAX; at += 1) {
      const { world, about } = await prepared(scenario);
      await using _ = world;
      await world.stop();
      world.backend.restart();
      const interrupter = new Interrupter({ at, mode: 'fail' });
      await world.start({ ...interrupter });
      // What fails at a start is only logged.
      if (interrupter.isReached) continue;
      const error = await scenario.act(world, about).then(
        () => null,
        (reason: Error) => reason,
      );
      if (!interrupter.isReached) {
        expect([error, failures > 0]).toEqual([null, true]);
        return;
      }
      failures += 1;
      expect(error?.message).toContain(interrupter.where);
      expect(await found(world, about.volume)).toEqual(scenario.before);
      await scenario.act(world, about);
      expect(await found(world, about.volume)).toEqual(scenario.done);
    }
    throw new Error(`more than ${STEPS_MAX} steps`);
  });

  test('changes nothing when the catalog cannot commit', async () => {
    let isFull = false;
    const world = await World.open({
      aroundCatalog: (catalog) => ({
        reader: catalog.reader,
        write: (change) => (isFull ? Promise.reject(new Error('disk full')) : catalog.write(change)),
        close: () => catalog.close(),
      }),
    });
    await using _ = world;
    const volume = await world.volume();
    const attachment = await scenario.prepare(world, volume);
    isFull = true;
    await expect(scenario.act(world, { volume, attachment })).rejects.toThrow('disk full');
    expect(await found(world, volume)).toEqual(scenario.before);
    isFull = false;
    await scenario.act(world, { volume, attachment });
    expect(await found(world, volume)).toEqual(scenario.done);
  });
});

test('the exports of a volume whose disk failed are not published at a start, and its attachments can be ended', async () => {
  await using world = await World.open();
  const volume = await world.volume();
  const attachment = await attached(world, volume);
  world.backend.fail(volume, 'errno 5');
  await world.crash();
  await world.start();
  expect(unlisted(world)).toEqual([]);
  await deleteAttachment(world.control, CALLER, attachment);
  expect(await attachmentsOf(world.control.catalog.reader, volume)).toEqual([]);
  expect((await findVolume(world.control.catalog.reader, volume))?.status).toBe('error');
});

test('without a listing of everything, only attachments have exports, and they come back at each start', async () => {
  const settings = { publishAll: false };
  await using world = await World.open({ settings });
  const volume = await world.volume({ name: 'data' });
  await attached(world, volume);
  const names = [...world.backend.published().keys()];
  expect(names).toEqual(unlisted(world));
  expect(names).toHaveLength(1);
  await world.crash();
  await world.start({ settings });
  expect([...world.backend.published().keys()]).toEqual(names);
  expect(await statusByAttachments(world.control.catalog.reader, volume)).toBe('in-use');
});
