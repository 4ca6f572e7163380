import { realFiles } from '../../src/base/files.ts';
import { tempFolder } from '../support/temp.ts';
import { filesContract } from './files.ts';

filesContract('on the real disk', async () => {
  const folder = await tempFolder();
  return {
    files: realFiles(folder.path),
    again: () => realFiles(folder.path),
    close: () => folder.remove(),
  };
});
