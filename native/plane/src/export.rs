//! The table of published exports: name to backing, and which connections came through which name. The handshake answers
//! from it and asks nobody.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use rustix::net::Shutdown;

use crate::backing::Backing;
use crate::stats::{Counters, ExportStats};

/// Through which listeners an export is found: those for clients, or the one for the process itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    Clients,
    Internal,
}

pub struct ExportSpec {
    pub backing: Arc<dyn Backing>,
    pub door: Door,
    pub read_only: bool,
    /// Told to whoever asks for a list. The name of one that is not is a secret: only who knows it finds the export.
    pub is_listed: bool,
    pub description: String,
}

pub struct Export {
    pub name: String,
    pub backing: Arc<dyn Backing>,
    pub read_only: bool,
    pub description: String,
    door: Door,
    pub counters: Arc<Counters>,
    is_listed: AtomicBool,
    state: Mutex<State>,
}

type Done = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    sockets: HashMap<u64, Arc<OwnedFd>>,
    is_gone: bool,
    /// Called when the last connection of an export that is gone has ended.
    waiting: Vec<Done>,
}

/// A connection's hold on its export: while it lives, the connection may do I/O.
pub struct Lease {
    pub export: Arc<Export>,
    connection: u64,
}

impl Export {
    /// For a client that can still be told why not; `attach` has the last word.
    pub fn is_full(&self, connections_max: usize) -> bool {
        self.state.lock().sockets.len() >= connections_max
    }

    /// `None` once the export is gone or has as many as it may.
    pub fn attach(
        self: &Arc<Self>,
        connection: u64,
        socket: Arc<OwnedFd>,
        connections_max: usize,
    ) -> Option<Lease> {
        let mut state = self.state.lock();
        if state.is_gone || state.sockets.len() >= connections_max {
            return None;
        }
        state.sockets.insert(connection, socket);
        self.counters.connections.fetch_add(1, Ordering::Relaxed);
        Some(Lease {
            export: Arc::clone(self),
            connection,
        })
    }

    fn withdraw(&self, done: Done) {
        let mut state = self.state.lock();
        state.is_gone = true;
        if state.sockets.is_empty() {
            drop(state);
            return done();
        }
        state.waiting.push(done);
        for socket in state.sockets.values() {
            // Fails only if the peer is gone already, which is what is wanted.
            let _ = rustix::net::shutdown(socket, Shutdown::Both);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut state = self.export.state.lock();
        state.sockets.remove(&self.connection);
        self.export
            .counters
            .connections
            .fetch_sub(1, Ordering::Relaxed);
        if state.is_gone && state.sockets.is_empty() {
            let waiting = std::mem::take(&mut state.waiting);
            drop(state);
            for done in waiting {
                done();
            }
        }
    }
}

/// Runs what it holds when the last of its owners lets go.
struct AfterAll(Mutex<Option<Done>>);

impl Drop for AfterAll {
    fn drop(&mut self) {
        if let Some(done) = self.0.get_mut().take() {
            done();
        }
    }
}

#[derive(Default)]
pub struct ExportTable {
    names: RwLock<Names>,
}

#[derive(Default)]
struct Names {
    /// By hash with a secret seed: an ordered table would compare a guess with real names letter by letter, and take the longer
    /// the more of them were right.
    exports: HashMap<String, Arc<Export>>,
    /// Withdrawn ones, which live as long as they have connections. An `unpublish` waits for those of its name too: it may be
    /// the second for the name, or the name may have changed hands.
    leaving: Vec<Weak<Export>>,
    /// Counters per backing with the number of names that share them.
    counters: HashMap<usize, (Arc<Counters>, usize)>,
}

pub(crate) fn identity(backing: &Arc<dyn Backing>) -> usize {
    Arc::as_ptr(backing).cast::<()>() as usize
}

impl ExportTable {
    pub fn get(&self, name: &str, door: Door) -> Option<Arc<Export>> {
        let names = self.names.read();
        let export = names.exports.get(name)?;
        (export.door == door).then(|| Arc::clone(export))
    }

    /// Those that are listed, in a steady order.
    pub fn list(&self, door: Door) -> Vec<Arc<Export>> {
        let mut listed: Vec<Arc<Export>> = (self.names.read().exports.values())
            .filter(|export| export.door == door && export.is_listed.load(Ordering::Relaxed))
            .cloned()
            .collect();
        listed.sort_by(|one, other| one.name.cmp(&other.name));
        listed
    }

    /// A name that is taken by another backing, or in another mode, changes hands: connections through the old one end.
    pub fn publish(&self, name: String, spec: ExportSpec) {
        let mut names = self.names.write();
        if let Some(old) = names.exports.get(&name)
            && identity(&old.backing) == identity(&spec.backing)
            && old.read_only == spec.read_only
            && old.door == spec.door
        {
            old.is_listed.store(spec.is_listed, Ordering::Relaxed);
            return;
        }
        let old = names.remove(&name);
        let entry = names.counters.entry(identity(&spec.backing)).or_default();
        entry.1 += 1;
        let counters = Arc::clone(&entry.0);
        let ExportSpec {
            backing,
            door,
            read_only,
            is_listed,
            description,
        } = spec;
        let export = Export {
            name: name.clone(),
            backing,
            read_only,
            description,
            door,
            counters,
            is_listed: AtomicBool::new(is_listed),
            state: Mutex::default(),
        };
        names.exports.insert(name, Arc::new(export));
        names.leaving.retain(|export| export.strong_count() > 0);
        names.leaving.extend(old.as_ref().map(Arc::downgrade));
        drop(names);
        if let Some(old) = old {
            old.withdraw(Box::new(|| {}));
        }
    }

    /// `done` runs when no connection that came through this name can do I/O any more.
    pub fn unpublish(&self, name: &str, done: Done) {
        let mut names = self.names.write();
        let removed = names.remove(name);
        names.leaving.retain(|export| export.strong_count() > 0);
        names.leaving.extend(removed.as_ref().map(Arc::downgrade));
        let leaving = names.leaving.clone();
        drop(names);
        let last = Arc::new(AfterAll(Mutex::new(Some(done))));
        for export in leaving.iter().filter_map(Weak::upgrade) {
            if export.name != name {
                continue;
            }
            let hold = Arc::clone(&last);
            export.withdraw(Box::new(move || drop(hold)));
        }
    }

    pub fn stats(&self, backing: &Arc<dyn Backing>) -> ExportStats {
        self.names
            .read()
            .counters
            .get(&identity(backing))
            .map(|(counters, _)| counters.read())
            .unwrap_or_default()
    }
}

impl Names {
    fn remove(&mut self, name: &str) -> Option<Arc<Export>> {
        let export = self.exports.remove(name)?;
        if let Some(entry) = self.counters.get_mut(&identity(&export.backing)) {
            entry.1 -= 1;
            if entry.1 == 0 {
                self.counters.remove(&identity(&export.backing));
            }
        }
        Some(export)
    }
}
