import { MemoryBackend } from '../../src/backend/memory.ts';
import { backendContract } from './backend.ts';

backendContract('memory', async () => {
  const backend = new MemoryBackend();
  return {
    backend,
    write: async (id, offset) => backend.write(id, offset),
    async connect(name) {
      const target = backend.connect(name);
      return async () => backend.disconnect(target);
    },
    close: () => backend.close(),
  };
});
