/** The functions of fs-ext that are used here; the package has no types of its own. */
declare module 'fs-ext' {
  export function seek(
    fd: number,
    offset: number,
    whence: number,
    callback: (error: NodeJS.ErrnoException | null, position: number) => void,
  ): void;
  export function flockSync(fd: number, flags: 'exnb'): void;
}
