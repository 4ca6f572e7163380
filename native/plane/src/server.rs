//! Listeners and connections: binds, accepts, gives each connection a thread, and ends them all. Knows the protocol only by its
//! two entrances, `negotiate` and `Connection`.

use std::collections::HashMap;
use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::net::{AddressFamily, Shutdown, SocketAddrUnix, SocketFlags, SocketType};

use crate::backing::Backing;
use crate::export::{Door, ExportSpec, ExportTable};
use crate::limits::{Limits, SEND_BUFFER_BYTES, STACK_BYTES};
use crate::nbd::connection::{Connection, set_idle_timeout};
use crate::nbd::execute::Executor;
use crate::nbd::handshake::{End, negotiate};
use crate::nbd::outgoing::Outgoing;
use crate::nbd::tls::TlsMode;
use crate::stats::{ExportStats, ServerStats};
use crate::work::Workers;

#[derive(Clone)]
pub struct Server {
    inner: Arc<Inner>,
}

struct Inner {
    limits: Limits,
    table: ExportTable,
    tls: ArcSwap<TlsMode>,
    io: Arc<Workers>,
    listeners: Mutex<Vec<Listener>>,
    connections: Mutex<HashMap<u64, Arc<OwnedFd>>>,
    /// A connection ended.
    ended: Condvar,
    is_closing: Arc<AtomicBool>,
    connections_total: AtomicU64,
    handshakes_failed: AtomicU64,
    /// Of threads that serve clients; each ended its connection.
    panics: Arc<AtomicU64>,
}

struct Listener {
    socket: Arc<OwnedFd>,
    path: Option<PathBuf>,
    thread: JoinHandle<()>,
}

impl Server {
    pub fn new(limits: Limits) -> Server {
        Server {
            inner: Arc::new(Inner {
                limits,
                table: ExportTable::default(),
                tls: ArcSwap::default(),
                io: Workers::with_share("io", limits.io_threads_max, limits.io_threads_max * 3 / 4),
                listeners: Mutex::default(),
                connections: Mutex::default(),
                ended: Condvar::new(),
                is_closing: Arc::default(),
                connections_total: AtomicU64::new(0),
                handshakes_failed: AtomicU64::new(0),
                panics: Arc::default(),
            }),
        }
    }

    /// `unix:PATH` or `host:port`; returns the address as bound. A socket file that nobody serves is replaced.
    pub fn listen(&self, address: &str) -> io::Result<String> {
        if let Some(path) = address.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            self.accept_from(bind_unix(&path)?, Some(path), Door::Clients)?;
            return Ok(address.to_string());
        }
        let listener = TcpListener::bind(address)?;
        let bound = listener.local_addr()?.to_string();
        self.accept_from(listener.into(), None, Door::Clients)?;
        Ok(bound)
    }

    /// The door of the process itself: a unix socket where only internal exports are found, all in plain text whatever clients have
    /// to do, and however many of those there are. Who may open the socket is the business of its folder and mode.
    pub fn listen_internally(&self, path: &Path) -> io::Result<()> {
        self.accept_from(bind_unix(path)?, Some(path.to_path_buf()), Door::Internal)
    }

    fn accept_from(&self, socket: OwnedFd, path: Option<PathBuf>, door: Door) -> io::Result<()> {
        let socket = Arc::new(socket);
        let (inner, accepting, is_tcp) =
            (Arc::clone(&self.inner), Arc::clone(&socket), path.is_none());
        let thread = std::thread::Builder::new()
            .name("nbd-accept".into())
            .spawn(move || inner.accept_all(&accepting, is_tcp, door))?;
        self.inner.listeners.lock().push(Listener {
            socket,
            path,
            thread,
        });
        Ok(())
    }

    /// For handshakes that begin from now on.
    pub fn set_tls(&self, mode: TlsMode) {
        self.inner.tls.store(Arc::new(mode));
    }

    pub fn publish(&self, name: String, spec: ExportSpec) {
        self.inner.table.publish(name, spec);
    }

    /// `done` runs, on any thread, when no connection that came through this name can do I/O any more.
    pub fn unpublish(&self, name: &str, done: Box<dyn FnOnce() + Send>) {
        self.inner.table.unpublish(name, done);
    }

    pub fn stats(&self) -> ServerStats {
        ServerStats {
            connections: u32::try_from(self.inner.connections.lock().len()).unwrap_or(u32::MAX),
            connections_total: self.inner.connections_total.load(Ordering::Relaxed),
            handshakes_failed: self.inner.handshakes_failed.load(Ordering::Relaxed),
            panics: self.inner.panics.load(Ordering::Relaxed),
        }
    }

    pub fn export_stats(&self, backing: &Arc<dyn Backing>) -> ExportStats {
        self.inner.table.stats(backing)
    }

    /// Stops accepting; what was received is done and answered; whoever is left after `grace` is cut off.
    pub fn close(&self, grace: Duration) {
        self.inner.is_closing.store(true, Ordering::SeqCst);
        for listener in std::mem::take(&mut *self.inner.listeners.lock()) {
            // Wakes accept(2), on both kinds of socket.
            let _ = rustix::net::shutdown(&*listener.socket, Shutdown::Both);
            if let Some(path) = &listener.path {
                // Somebody may have removed it already.
                let _ = std::fs::remove_file(path);
            }
            // A panic of the accept thread has been reported by its own output.
            let _ = listener.thread.join();
        }
        self.shutdown_all(Shutdown::Read);
        let deadline = Instant::now() + grace;
        let mut connections = self.inner.connections.lock();
        while !connections.is_empty()
            && !self
                .inner
                .ended
                .wait_until(&mut connections, deadline)
                .timed_out()
        {}
        drop(connections);
        self.shutdown_all(Shutdown::Both);
        let mut connections = self.inner.connections.lock();
        while !connections.is_empty()
            && !self
                .inner
                .ended
                .wait_for(&mut connections, grace)
                .timed_out()
        {}
    }

    fn shutdown_all(&self, how: Shutdown) {
        for socket in self.inner.connections.lock().values() {
            // Fails only if the peer is gone already.
            let _ = rustix::net::shutdown(socket, how);
        }
    }
}

/// Connections that wait for `accept`.
const BACKLOG: i32 = 1024;

fn bind_unix(path: &Path) -> io::Result<OwnedFd> {
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "the path exists and is not a socket",
            ));
        }
        if UnixStream::connect(path).is_ok() {
            return Err(io::Error::new(
                io::ErrorKind::AddrInUse,
                "another server listens on this socket",
            ));
        }
        std::fs::remove_file(path)?;
    }
    let socket = rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens: nobody can connect while the mode is still the umask's.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

/// A client whose machine died holds its connection for two minutes, not for ever.
fn keep_alive(socket: &OwnedFd) -> rustix::io::Result<()> {
    use rustix::net::sockopt::{
        set_socket_keepalive, set_tcp_keepcnt, set_tcp_keepidle, set_tcp_keepintvl,
    };
    set_socket_keepalive(socket, true)?;
    set_tcp_keepidle(socket, Duration::from_secs(60))?;
    set_tcp_keepintvl(socket, Duration::from_secs(10))?;
    set_tcp_keepcnt(socket, 6)
}

impl Inner {
    /// Thread `nbd-accept`: owns nothing, blocks in accept, ends when the listening socket is shut down.
    fn accept_all(self: &Arc<Self>, listener: &OwnedFd, is_tcp: bool, door: Door) {
        loop {
            match rustix::net::accept_with(listener, SocketFlags::CLOEXEC) {
                Ok(socket) => {
                    if is_tcp {
                        // Replies are batched already; waiting for more would only add latency.
                        let _ = rustix::net::sockopt::set_tcp_nodelay(&socket, true);
                        let _ = keep_alive(&socket);
                    } else {
                        // Not on TCP, where the kernel sizes it better by itself.
                        let _ = rustix::net::sockopt::set_socket_send_buffer_size(
                            &socket,
                            SEND_BUFFER_BYTES,
                        );
                    }
                    self.start(Arc::new(socket), door);
                }
                Err(_) if self.is_closing.load(Ordering::SeqCst) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                // Out of descriptors or memory: others have to end first; or a network error of a connection that waited.
                Err(_) => std::thread::sleep(Duration::from_millis(50)),
            }
        }
    }

    fn start(self: &Arc<Self>, socket: Arc<OwnedFd>, door: Door) {
        let number = self.connections_total.fetch_add(1, Ordering::Relaxed);
        {
            let mut connections = self.connections.lock();
            let is_full = connections.len() >= self.limits.connections_max;
            if (is_full && door == Door::Clients) || self.is_closing.load(Ordering::SeqCst) {
                return;
            }
            connections.insert(number, Arc::clone(&socket));
        }
        let inner = Arc::clone(self);
        let thread = std::thread::Builder::new()
            .name(format!("nbd-{number}"))
            .stack_size(STACK_BYTES)
            .spawn(move || {
                if catch_unwind(AssertUnwindSafe(|| inner.serve(number, &socket, door))).is_err() {
                    inner.panics.fetch_add(1, Ordering::Relaxed);
                    let _ = rustix::net::shutdown(&*socket, Shutdown::Both);
                }
                drop(socket);
                inner.end(number);
            });
        if thread.is_err() {
            self.end(number);
        }
    }

    fn end(&self, number: u64) {
        self.connections.lock().remove(&number);
        self.ended.notify_all();
    }

    /// Thread `nbd-N`: handshake, then requests; ends with its socket.
    fn serve(&self, number: u64, socket: &Arc<OwnedFd>, door: Door) {
        let tls = match door {
            Door::Clients => self.tls.load_full(),
            Door::Internal => Arc::default(),
        };
        let session = match negotiate(socket, &self.table, door, &self.limits, &tls) {
            Ok(session) => session,
            Err(end) => {
                if end == End::Dropped {
                    self.handshakes_failed.fetch_add(1, Ordering::Relaxed);
                }
                return;
            }
        };
        // Gone or full between the handshake and now: the client sees the connection close.
        let connections_max = self.limits.export_connections_max;
        let attached = (session.export).attach(number, Arc::clone(socket), connections_max);
        let Some(lease) = attached else {
            return;
        };
        if set_idle_timeout(socket).is_err() {
            return;
        }
        let Ok(outgoing) = Outgoing::new(session.stream, lease, session.style) else {
            return;
        };
        let outgoing = Arc::new(outgoing);
        let executor = Executor::new(Arc::clone(&outgoing), session.contexts.into());
        let (io, panics) = (Arc::clone(&self.io), Arc::clone(&self.panics));
        Connection::new(executor, io, panics, Arc::clone(&self.is_closing)).run();
        outgoing.end();
        outgoing.lease.export.backing.nudge();
        outgoing.stream.close();
        let _ = rustix::net::shutdown(&**socket, Shutdown::Both);
    }
}
