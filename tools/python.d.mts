/** The types of python.mjs, which stays plain JavaScript because it runs without a build. */
export function missingPython(): string | null;
export function pythonEnvironment(name: string): Promise<string>;
