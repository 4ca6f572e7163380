//! N-API only: converts, calls, converts. No decision is taken here and no loop runs over data.

mod abi;

use std::sync::Arc;
use std::time::Duration;

use napi::bindgen_prelude::{AsyncTask, Buffer, Env, Error, Function, Result, Task, Uint8Array};
use napi::threadsafe_function::ThreadsafeFunctionCallMode;
use napi_derive::napi;
use plane::limits::Limits;
use plane::nbd::tls::{TlsFiles, TlsMode, load};
use plane::throttle;

fn refused(what: &str) -> Error {
    Error::from_reason(what.to_string())
}

fn pairs_of(words: &[u32]) -> Vec<(u32, u32)> {
    let (pairs, _) = words.as_chunks();
    pairs.iter().map(|[one, other]| (*one, *other)).collect()
}

#[napi]
pub struct NativePlane {
    plane: Arc<plane::plane::Plane>,
}

#[napi(object)]
pub struct ServerStats {
    pub connections: u32,
    pub connections_total: i64,
    pub handshakes_failed: i64,
    pub panics: i64,
    pub filled_bytes: i64,
}

#[napi(object)]
pub struct VolumeStats {
    pub connections: u32,
    pub read_ops: i64,
    pub read_bytes: i64,
    pub write_ops: i64,
    pub write_bytes: i64,
    pub flush_ops: i64,
    pub trim_ops: i64,
    pub trim_bytes: i64,
    pub errors: i64,
    pub throttled_us: i64,
}

#[napi(object)]
pub struct Rate {
    pub average: f64,
    pub burst: f64,
    pub burst_seconds: f64,
}

#[napi(object)]
pub struct SpeedLimits {
    pub total_ops: Rate,
    pub read_ops: Rate,
    pub write_ops: Rate,
    pub total_bytes: Rate,
    pub read_bytes: Rate,
    pub write_bytes: Rate,
}

impl From<Rate> for throttle::Rate {
    fn from(rate: Rate) -> Self {
        Self {
            average: rate.average,
            burst: rate.burst,
            burst_seconds: rate.burst_seconds,
        }
    }
}

impl From<SpeedLimits> for throttle::SpeedLimits {
    fn from(limits: SpeedLimits) -> Self {
        Self {
            total_ops: limits.total_ops.into(),
            read_ops: limits.read_ops.into(),
            write_ops: limits.write_ops.into(),
            total_bytes: limits.total_bytes.into(),
            read_bytes: limits.read_bytes.into(),
            write_bytes: limits.write_bytes.into(),
        }
    }
}

/// Connections at once, in all and through one name.
#[napi(object)]
pub struct ConnectionLimits {
    pub connections_max: u32,
    pub export_connections_max: u32,
}

/// Paths of PEM files.
#[napi(object)]
pub struct TlsOptions {
    pub certificate: String,
    pub key: String,
    pub client_ca: Option<String>,
    pub is_required: bool,
}

#[napi(object)]
pub struct ExportMode {
    pub read_only: bool,
    pub is_listed: bool,
    pub is_internal: bool,
    pub description: String,
}

#[napi]
impl NativePlane {
    /// `wake` is called with no arguments when events wait to be drained.
    #[napi(constructor)]
    pub fn new(limits: ConnectionLimits, wake: Function<'_, (), ()>) -> Result<Self> {
        let limits = Limits {
            connections_max: limits.connections_max as usize,
            export_connections_max: limits.export_connections_max as usize,
            ..Limits::default()
        };
        let wake = wake.build_threadsafe_function().weak::<true>().build()?;
        let wake = Box::new(move || {
            // Fails only while the environment is torn down: then nobody is left to drain.
            let _ = wake.call((), ThreadsafeFunctionCallMode::NonBlocking);
        });
        Ok(NativePlane {
            plane: Arc::new(plane::plane::Plane::new(limits, wake)),
        })
    }

    #[napi]
    pub fn listen(&self, address: String) -> Result<String> {
        self.plane
            .server
            .listen(&address)
            .map_err(|error| Error::from_reason(format!("cannot listen on {address}: {error}")))
    }

    /// As `listen`, for the process itself: see `Door`.
    #[napi]
    pub fn listen_internally(&self, path: String) -> Result<()> {
        self.plane
            .server
            .listen_internally(path.as_ref())
            .map_err(|error| Error::from_reason(format!("cannot listen on unix:{path}: {error}")))
    }

    /// Reads the files; they hold for handshakes that begin from now on. Fails with nothing changed.
    #[napi]
    pub fn set_tls(&self, options: TlsOptions) -> Result<()> {
        let files = TlsFiles {
            certificate: options.certificate.into(),
            key: options.key.into(),
            client_ca: options.client_ca.map(Into::into),
        };
        let config = load(&files).map_err(|error| Error::from_reason(error.to_string()))?;
        self.plane.server.set_tls(if options.is_required {
            TlsMode::Require(config)
        } else {
            TlsMode::Allow(config)
        });
        Ok(())
    }

    #[napi]
    pub fn register_file(&self, number: u32, path: String) -> Result<()> {
        self.plane
            .register_file(number, path.into())
            .then_some(())
            .ok_or_else(|| refused("extent file number out of range"))
    }

    #[napi]
    pub fn forget_file(&self, number: u32) {
        self.plane.forget_file(number);
    }

    #[napi]
    pub fn open_volume(&self, handle: u32, size_bytes: i64, read_only: bool) -> Result<()> {
        let size = u64::try_from(size_bytes).map_err(|_| refused("negative size"))?;
        self.plane
            .open_volume(handle, size, read_only)
            .then_some(())
            .ok_or_else(|| refused("handle in use"))
    }

    #[napi]
    pub fn close_volume(&self, handle: u32, id: u32) {
        self.plane.close_volume(handle, id);
    }

    #[napi]
    pub fn resize_volume(&self, handle: u32, size_bytes: i64) -> Result<()> {
        let size = u64::try_from(size_bytes).map_err(|_| refused("negative size"))?;
        self.plane
            .resize_volume(handle, size)
            .then_some(())
            .ok_or_else(|| refused("unknown handle"))
    }

    #[napi]
    pub fn set_limits(&self, handle: u32, limits: SpeedLimits) -> Result<()> {
        self.plane
            .set_limits(handle, limits.into())
            .then_some(())
            .ok_or_else(|| refused("unknown handle"))
    }

    #[napi]
    pub fn publish(&self, name: String, handle: u32, mode: ExportMode) -> Result<()> {
        let mode = plane::plane::ExportMode {
            read_only: mode.read_only,
            is_listed: mode.is_listed,
            is_internal: mode.is_internal,
            description: mode.description,
        };
        self.plane
            .publish(name, handle, mode)
            .then_some(())
            .ok_or_else(|| refused("unknown handle"))
    }

    /// An export whose writes go only where nothing is yet.
    #[napi]
    pub fn publish_fill(&self, name: String, handle: u32) -> Result<()> {
        self.plane
            .publish_fill(name, handle)
            .then_some(())
            .ok_or_else(|| refused("unknown handle"))
    }

    /// Runs of entries as pairs of first and count.
    #[napi]
    pub fn begin_fill(&self, handle: u32, runs: Vec<u32>) -> Result<()> {
        self.plane
            .begin_fill(handle, &pairs_of(&runs))
            .then_some(())
            .ok_or_else(|| refused("unknown handle"))
    }

    #[napi]
    pub fn narrow_fill(&self, handle: u32, runs: Vec<u32>) {
        self.plane.narrow_fill(handle, &pairs_of(&runs));
    }

    #[napi]
    pub fn fail_fill(&self, handle: u32, entry: u32) {
        self.plane.fail_fill(handle, entry);
    }

    #[napi]
    pub fn end_fill(&self, handle: u32) {
        self.plane.end_fill(handle);
    }

    #[napi]
    pub fn unpublish(&self, name: String, id: u32) {
        self.plane.unpublish(&name, id);
    }

    #[napi]
    pub fn load_leaf(&self, handle: u32, leaf: u32, page: Uint8Array) -> bool {
        self.plane.load_leaf(handle, leaf, &page)
    }

    #[napi]
    pub fn load_holes(&self, handle: u32, first: u32, count: u32) {
        self.plane.load_holes(handle, first, count);
    }

    #[napi]
    pub fn fail_leaf(&self, handle: u32, leaf: u32) {
        self.plane.fail_leaf(handle, leaf);
    }

    #[napi]
    pub fn drop_leaves(&self, handle: u32) {
        self.plane.drop_leaves(handle);
    }

    #[napi]
    pub fn fill(&self, handle: u32, indices: Vec<u32>) -> bool {
        self.plane.fill(handle, indices)
    }

    #[napi]
    pub fn grant(&self, handle: u32, first: u32, count: u32) -> bool {
        self.plane.grant(handle, first, count)
    }

    #[napi]
    pub fn return_grants(&self, handle: u32) {
        self.plane.return_grants(handle);
    }

    #[napi]
    pub fn refuse(&self, handle: u32) {
        self.plane.refuse(handle);
    }

    #[napi]
    pub fn flush(&self, handle: u32, token: u32) -> bool {
        self.plane.flush(handle, token)
    }

    #[napi]
    pub fn freeze(&self, handle: u32, token: u32) -> bool {
        self.plane.freeze(handle, token)
    }

    /// Handles and tokens in pairs; returns the tokens of handles that are not known.
    #[napi]
    pub fn freeze_together(&self, members: Vec<u32>) -> Vec<u32> {
        self.plane.freeze_together(&pairs_of(&members))
    }

    #[napi]
    pub fn committed(&self, token: u32, errno: i32) {
        self.plane.committed(token, errno);
    }

    /// To a question (abi.rs): words of 64 bits, little-endian, in pairs; none: there is no such snapshot.
    #[napi]
    pub fn answer(&self, id: u32, words: Option<Uint8Array>) {
        let words = words.map(|bytes| {
            let (words, _) = bytes.as_chunks();
            words.iter().map(|word| u64::from_le_bytes(*word)).collect()
        });
        self.plane.answer(id, words);
    }

    #[napi]
    pub fn advance_epoch(&self) -> u32 {
        self.plane.advance_epoch()
    }

    #[napi]
    pub fn quiesced_epoch(&self) -> u32 {
        self.plane.quiesced_epoch()
    }

    #[napi]
    pub fn allocate_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        self.plane.allocate_run(file, first_slot, count, id);
    }

    #[napi]
    pub fn punch_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        self.plane.punch_run(file, first_slot, count, id);
    }

    #[napi]
    pub fn sum_run(&self, file: u32, first_slot: u32, count: u32, id: u32) {
        self.plane.sum_run(file, first_slot, count, id);
    }

    #[napi]
    pub fn set_damaged(&self, extents: Vec<u32>, is_damaged: bool) {
        self.plane.set_damaged(&extents, is_damaged);
    }

    /// Every waiting event as records (layout: abi.rs), oldest first.
    #[napi]
    pub fn drain(&self) -> Buffer {
        abi::encode(&self.plane.drain()).into()
    }

    #[napi]
    pub fn stats(&self) -> ServerStats {
        let stats = self.plane.server.stats();
        ServerStats {
            connections: stats.connections,
            connections_total: stats.connections_total as i64,
            handshakes_failed: stats.handshakes_failed as i64,
            panics: stats.panics as i64,
            filled_bytes: self.plane.filled_bytes() as i64,
        }
    }

    #[napi]
    pub fn volume_stats(&self, handle: u32) -> Option<VolumeStats> {
        let backing = self.plane.backing(handle)?;
        let stats = self.plane.server.export_stats(&backing);
        Some(VolumeStats {
            connections: stats.connections,
            read_ops: stats.read_ops as i64,
            read_bytes: stats.read_bytes as i64,
            write_ops: stats.write_ops as i64,
            write_bytes: stats.write_bytes as i64,
            flush_ops: stats.flush_ops as i64,
            trim_ops: stats.trim_ops as i64,
            trim_bytes: stats.trim_bytes as i64,
            errors: stats.errors as i64,
            throttled_us: backing
                .throttle()
                .map_or(0, |throttle| throttle.waited().as_micros() as i64),
        })
    }

    /// Stops serving; resolves when every connection is closed.
    #[napi(ts_return_type = "Promise<void>")]
    pub fn close(&self, grace_ms: u32) -> AsyncTask<Close> {
        AsyncTask::new(Close {
            plane: Arc::clone(&self.plane),
            grace: Duration::from_millis(u64::from(grace_ms)),
        })
    }
}

pub struct Close {
    plane: Arc<plane::plane::Plane>,
    grace: Duration,
}

impl Task for Close {
    type Output = ();
    type JsValue = ();

    fn compute(&mut self) -> Result<()> {
        self.plane.close(self.grace);
        Ok(())
    }

    fn resolve(&mut self, _env: Env, (): ()) -> Result<()> {
        Ok(())
    }
}

/// sd_notify(3): one datagram to the service manager's socket, which Node cannot send.
#[napi]
pub fn notify_service_manager(socket: String, state: String) -> Result<()> {
    plane::notify::send(&socket, &state)
        .map_err(|error| Error::from_reason(format!("cannot notify {socket}: {error}")))
}
