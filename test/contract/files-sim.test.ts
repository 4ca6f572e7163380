import { SimDisk } from '../sim/files.ts';
import { filesContract } from './files.ts';

filesContract('on the simulated disk', async () => {
  const files = new SimDisk({ seed: 1, totalBytes: 2 ** 30 });
  return { files, again: () => files, close: async () => {} };
});
