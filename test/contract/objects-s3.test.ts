import { expect, test } from 'vitest';
import { S3Objects } from '../../src/objects/s3.ts';
import { describeWith } from '../support/peers.ts';
import { S3_SERVERS, startS3 } from '../support/s3.ts';
import { objectsContract } from './objects.ts';

for (const name of S3_SERVERS) {
  describeWith([name], name, () => {
    objectsContract(name, async () => {
      const server = await startS3(name);
      return {
        objects: new S3Objects(server.options),
        again: async () => new S3Objects({ ...server.options, checksums: 'required-only' }),
        close: async () => {
          await server[Symbol.asyncDispose]();
        },
      };
    });

    test('wrong keys, a missing bucket and a server that is gone are failures of the store, with its place', async () => {
      await using server = await startS3(name);
      const wrongKeys = new S3Objects({
        ...server.options,
        credentials: { accessKeyId: 'nobody', secretAccessKey: 'nothing at all' },
      });
      const failure = { code: 'objects_unavailable', message: expect.stringContaining('s3://') };
      await expect(wrongKeys.get('a/b.json', null)).rejects.toMatchObject(failure);
      const noBucket = new S3Objects({ ...server.options, bucket: 'nowhere-to-be-seen' });
      await expect(noBucket.get('a/b.json', null)).rejects.toMatchObject(failure);
      await expect(noBucket.folders('a/')).rejects.toMatchObject(failure);
      await expect(noBucket.put('a/b.json', Buffer.from('x'), { ifAbsent: true })).rejects.toMatchObject(failure);
      await server[Symbol.asyncDispose]();
      const gone = new S3Objects(server.options);
      await expect(gone.get('a/b.json', null)).rejects.toMatchObject(failure);
    });
  });
}
