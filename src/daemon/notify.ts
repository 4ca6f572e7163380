/**
 * systemd's notify protocol: a datagram to the socket that NOTIFY_SOCKET names. Node cannot send to unix datagram
 * sockets, so whoever starts the daemon hands in what can.
 */
import type { Log } from '../base/log.ts';

/** Sends one datagram; a leading `@` in the path is an abstract socket. */
export type SendDatagram = (path: string, text: string) => void;

export type Notify = (state: 'READY=1' | 'STOPPING=1' | 'RELOADING=1') => void;

export function openNotify(options: { socket: string | undefined; send: SendDatagram | null; log: Log }): Notify {
  const { socket, send, log } = options;
  if (socket === undefined || socket === '') return () => {};
  if (send === null) {
    log.warn({ socket }, 'NOTIFY_SOCKET is set, but this build cannot send datagrams: use Type=simple');
    return () => {};
  }
  return (state) => {
    try {
      send(socket, state);
    } catch (error) {
      log.warn({ socket, state, err: error }, 'systemd could not be notified');
    }
  };
}
