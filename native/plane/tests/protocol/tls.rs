//! STARTTLS: who may, who must, what is forgotten, and that requests under TLS are answered as plain ones are: in batches, out of
//! order, in pieces of any size, to clients that read slowly.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use plane::limits::Limits;
use plane::nbd::tls::{TlsFiles, TlsMode, load};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, RootCertStore};

use super::support::client::*;
use super::*;

const STARTTLS: u32 = 5;

/// A certificate authority, the server's files signed by it, and clients.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let authority = Authority {
            issuer: CertifiedIssuer::self_signed(params, key).unwrap(),
            folder: tempfile::tempdir().unwrap(),
        };
        let (certificate, key) = authority.sign();
        let write = |name, text: String| std::fs::write(authority.path(name), text).unwrap();
        write("ca.pem", authority.issuer.pem());
        write("server.pem", certificate.pem());
        write("server.key", key.serialize_pem());
        authority
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn sign(&self) -> (rcgen::Certificate, KeyPair) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["localhost".to_string()]).unwrap();
        (params.signed_by(&key, &self.issuer).unwrap(), key)
    }

    fn files(&self, client_ca: Option<PathBuf>) -> TlsFiles {
        TlsFiles {
            certificate: self.path("server.pem"),
            key: self.path("server.key"),
            client_ca,
        }
    }

    /// Trusts this authority's servers; with a certificate by `signer` if there is one.
    fn client(&self, signer: Option<&Authority>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        Arc::new(match signer {
            None => builder.with_no_client_auth(),
            Some(signer) => {
                let (certificate, key) = signer.sign();
                let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
                builder
                    .with_client_auth_cert(vec![certificate.der().clone()], key)
                    .unwrap()
            }
        })
    }
}

fn secured(mode: fn(Arc<rustls::ServerConfig>) -> TlsMode, size: u64) -> (Fixture, Authority) {
    let (fixture, authority) = (fixture_with(Limits::default(), size), Authority::new());
    let config = load(&authority.files(None)).unwrap();
    fixture.server.set_tls(mode(config));
    (fixture, authority)
}

fn encrypted(fixture: &Fixture, config: &Arc<ClientConfig>) -> Client {
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
    client.shake(config).unwrap();
    client
}

/// In transmission on "disk", with simple replies.
fn ready(fixture: &Fixture, config: &Arc<ClientConfig>) -> Client {
    let mut client = encrypted(fixture, config);
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    client
}

#[test]
fn the_internal_door_serves_internal_exports_without_tls_and_clients_find_none_of_them() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let spec = ExportSpec {
        backing: fixture.memory.clone(),
        door: Door::Internal,
        read_only: false,
        is_listed: true,
        description: String::new(),
    };
    fixture.server.publish("own".into(), spec);
    let door = fixture.path.with_extension("internal");
    fixture.server.listen_internally(&door).unwrap();
    let mode = std::fs::metadata(&door).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);

    let mut client = Client::greeted(&door);
    let names = |replies: Vec<OptionReply>| replies[..replies.len() - 1].len();
    assert_eq!(names(client.ask(3, &[])), 1);
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies[0].kind, ERR | 6, "a client's export");
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ERR | 2);
    let replies = client.ask(7, &info_data("own", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    assert_eq!(client.write(0, 5, b"inside"), 0);

    let mut client = encrypted(&fixture, &authority.client(None));
    assert_eq!(names(client.ask(3, &[])), 1);
    let replies = client.ask(7, &info_data("own", &[]));
    assert_eq!(replies[0].kind, ERR | 6, "an internal export");
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    assert_eq!(client.read(5, 6), b"inside");
}

/// Clients may fill the server: a backup still gets in.
#[test]
fn the_internal_door_is_open_where_clients_have_taken_every_connection() {
    let limits = Limits {
        connections_max: 1,
        ..Limits::default()
    };
    let fixture = fixture_with(limits, 1 << 20);
    let door = fixture.path.with_extension("internal");
    fixture.server.listen_internally(&door).unwrap();
    let _one = Client::greeted(&fixture.path);
    Client::connect(&fixture.path).assert_closed();
    let mut inside = Client::greeted(&door);
    assert_eq!(inside.ask(3, &[]).last().unwrap().kind, ACK);
}

#[test]
fn where_tls_is_required_nothing_else_is_answered_before_it() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let mut client = Client::greeted(&fixture.path);
    // LIST, PEEK, INFO, GO, STRUCTURED_REPLY, the contexts, EXTENDED_HEADERS, and one nobody knows.
    for kind in [3, 4, 6, 7, 8, 9, 10, 11, 0xdead] {
        let replies = client.ask(kind, &info_data("disk", &[]));
        assert_eq!(
            (replies.len(), replies[0].kind),
            (1, ERR | 5),
            "option {kind}"
        );
    }
    assert_eq!(client.ask(0xdead, &vec![0; 100_000])[0].kind, ERR | 5);
    assert_eq!(client.ask(STARTTLS, b"x")[0].kind, ERR | 3);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
    client.shake(&authority.client(None)).unwrap();
    assert_eq!(client.ask(3, &[]).last().unwrap().kind, ACK);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ERR | 3);
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    assert_eq!(client.write(FUA, 100, b"under TLS"), 0);
    assert_eq!(client.read(100, 9), b"under TLS");

    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(2, &[])[0].kind, ACK);
    client.assert_closed();
    let mut client = Client::greeted(&fixture.path);
    client.say(&option(1, b"disk"));
    client.assert_closed();
    // Without fixed newstyle there is no way to ask for TLS.
    let mut client = Client::connect(&fixture.path);
    client.take(18);
    client.say(&be32(2));
    client.say(&option(1, b"disk"));
    client.assert_closed();
}

#[test]
fn where_tls_is_allowed_it_is_the_clients_choice_and_where_it_is_off_it_is_refused() {
    let (fixture, authority) = secured(TlsMode::Allow, 1 << 20);
    let mut plain = Client::ready(&fixture.path, true);
    assert_eq!(plain.write(0, 0, b"plain"), 0);
    assert_eq!(
        ready(&fixture, &authority.client(None)).read(0, 5),
        b"plain"
    );
    fixture.server.set_tls(TlsMode::Off);
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ERR | 2);
    let replies = client.ask(7, &info_data("disk", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
}

#[test]
fn what_was_agreed_in_plain_text_is_forgotten() {
    let (fixture, authority) = secured(TlsMode::Allow, 1 << 20);
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    client.ask(10, &context_data("disk", &["base:allocation"]));
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
    client.shake(&authority.client(None)).unwrap();
    let contexts = client.ask(10, &context_data("disk", &["base:allocation"]));
    assert_eq!(contexts[0].kind, ERR | 3);
    client.ask(7, &info_data("disk", &[]));
    assert!(matches!(
        {
            client.say(&request(0, STATUS, 1, 0, 4096));
            client.reply()
        },
        Reply::Simple { errno: EINVAL, .. }
    ));
}

/// The hole that mail servers had in 2011 (and NBD servers after them): options sent in plain text right behind STARTTLS were kept
/// and obeyed as if they had come encrypted.
#[test]
fn plain_bytes_behind_starttls_end_the_connection() {
    let (fixture, _authority) = secured(TlsMode::Require, 1 << 20);
    let mut client = Client::greeted(&fixture.path);
    client.say(&[option(STARTTLS, &[]), option(7, &info_data("disk", &[]))].concat());
    assert_eq!(client.option_reply().kind, ACK);
    let mut rest = Vec::new();
    // A reset, or the end; before it at most an alert, which is no option reply.
    let _ = client.stream.read_to_end(&mut rest);
    assert!(
        !rest
            .windows(8)
            .any(|bytes| *bytes == be64(0x0003_e889_0455_65a9))
    );
    assert!(rest.first().is_none_or(|kind| *kind == 21), "{rest:?}");
    eventually("it counts as a failed handshake", || {
        fixture.server.stats().handshakes_failed == 1
    });
}

#[test]
fn with_a_client_authority_only_its_clients_get_in() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let stranger = Authority::new();
    let config = load(&authority.files(Some(authority.path("ca.pem")))).unwrap();
    fixture.server.set_tls(TlsMode::Require(config));
    assert_eq!(
        ready(&fixture, &authority.client(Some(&authority))).errno(0, FLUSH, 0, 0),
        0
    );
    for signer in [None, Some(&stranger)] {
        let mut client = Client::greeted(&fixture.path);
        assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
        // With TLS 1.3 the client is done before the server has looked at its certificate.
        if client.shake(&authority.client(signer)).is_ok() {
            assert!(client.try_say(&option(3, &[])).is_err());
        }
    }
    eventually("both count", || {
        fixture.server.stats().handshakes_failed == 2
    });
}

#[test]
fn a_new_certificate_is_for_new_connections() {
    let (fixture, old) = secured(TlsMode::Require, 1 << 20);
    let mut before = ready(&fixture, &old.client(None));
    let new = Authority::new();
    fixture
        .server
        .set_tls(TlsMode::Require(load(&new.files(None)).unwrap()));
    assert_eq!(ready(&fixture, &new.client(None)).errno(0, FLUSH, 0, 0), 0);
    assert_eq!(before.errno(0, FLUSH, 0, 0), 0);
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
    assert!(client.shake(&old.client(None)).is_err());
}

#[test]
fn what_is_no_certificate_is_refused_by_the_name_of_its_file() {
    let authority = Authority::new();
    let refused = |files: TlsFiles, name: &str| {
        let error = load(&files).err().unwrap().to_string();
        assert!(error.contains(name), "{error}");
    };
    let missing = TlsFiles {
        key: authority.path("missing"),
        ..authority.files(None)
    };
    refused(missing, "missing");
    std::fs::write(authority.path("empty"), "no PEM").unwrap();
    refused(authority.files(Some(authority.path("empty"))), "empty");
    let swapped = TlsFiles {
        key: authority.path("server.pem"),
        ..authority.files(None)
    };
    refused(swapped, "server.pem");
    // A key that belongs to another certificate.
    std::fs::write(
        authority.path("other"),
        KeyPair::generate().unwrap().serialize_pem(),
    )
    .unwrap();
    let foreign = TlsFiles {
        key: authority.path("other"),
        ..authority.files(None)
    };
    refused(foreign, "server.pem");
}

#[test]
fn requests_of_every_size_and_many_at_once_are_answered() {
    let (fixture, authority) = secured(TlsMode::Require, 64 << 20);
    let mut client = ready(&fixture, &authority.client(None));
    let bytes: Vec<u8> = (0..32u32 << 20).map(|index| (index % 251) as u8).collect();
    for length in [1, 4096, 16 << 10, (16 << 10) + 1, 300_000, 32 << 20] {
        assert_eq!(client.write(0, 7, &bytes[..length]), 0);
        assert!(
            client.read(7, length as u32) == bytes[..length],
            "{length} bytes"
        );
    }
    // More than a batch, in one go, while nothing is read: the server takes on what it may and then waits for us.
    let mut many = Vec::new();
    for cookie in 0..2000 {
        many.extend(request(0, READ, cookie, 7, 4096));
    }
    client.say(&many);
    for cookie in 0..2000 {
        assert_eq!(client.reply(), Reply::Simple { cookie, errno: 0 });
        assert!(client.take(4096) == bytes[..4096]);
    }
    client.say(&request(0, DISC, 0, 0, 0));
    client.assert_closed();
}

#[test]
fn a_request_that_would_block_is_overtaken_and_answered_later() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let mut client = ready(&fixture, &authority.client(None));
    fixture.memory.script(|script| {
        script.slow = Some(0..4096);
        script.holds_flushes = true;
    });
    // The slow one and the one behind it are in one record: nothing more comes to wake the server.
    client.say(
        &[
            request(0, READ, 1, 0, 4096),
            request(0, READ, 2, 8192, 4096),
        ]
        .concat(),
    );
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 2,
            errno: 0
        }
    );
    client.take(4096);
    client.say(&request(0, FLUSH, 3, 0, 0));
    fixture
        .memory
        .wait_until(|script| script.held_flushes.len() == 1);
    let held = fixture
        .memory
        .script(|script| std::mem::take(&mut script.held_flushes));
    for done in held {
        done(Ok(()));
    }
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 3,
            errno: 0
        }
    );
    fixture.memory.script(|script| script.slow = None);
    assert_eq!(
        client.reply(),
        Reply::Simple {
            cookie: 1,
            errno: 0
        }
    );
    client.take(4096);
}

#[test]
fn replies_from_elsewhere_reach_a_client_that_reads_late() {
    let (fixture, authority) = secured(TlsMode::Require, 16 << 20);
    let mut client = ready(&fixture, &authority.client(None));
    fixture
        .memory
        .script(|script| script.slow = Some(0..16 << 20));
    let mut many = Vec::new();
    for cookie in 0..16 {
        many.extend(request(0, READ, cookie, cookie << 20, 1 << 20));
    }
    client.say(&many);
    // One volume's share of the 16 threads; the others come after these.
    fixture.memory.wait_until(|script| script.waiting == 12);
    fixture.memory.script(|script| script.slow = None);
    // By now they fill the socket, the records behind it and the queue behind those.
    let mut seen = Vec::new();
    for _ in 0..16 {
        let Reply::Simple { cookie, errno: 0 } = client.reply() else {
            panic!("a failed read");
        };
        assert!(client.take(1 << 20).iter().all(|byte| *byte == 0));
        seen.push(cookie);
    }
    seen.sort_unstable();
    assert_eq!(seen, (0..16).collect::<Vec<u64>>());
}

#[test]
fn a_client_that_stops_in_the_tls_handshake_is_dropped_in_time() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let limits = Limits {
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    let impatient = fixture_with(limits, 1 << 20);
    impatient
        .server
        .set_tls(TlsMode::Require(load(&authority.files(None)).unwrap()));
    for hello in [&[][..], &[22, 3, 1, 2, 0, 1]] {
        let mut client = Client::greeted(&impatient.path);
        assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
        client.say(hello);
        client.assert_closed();
    }
    drop(fixture);
}

/// The time for a handshake is for all of it: bytes that come one by one buy no more.
#[test]
fn a_client_that_dribbles_in_the_tls_handshake_or_behind_it_is_dropped_in_time() {
    let authority = Authority::new();
    let limits = Limits {
        handshake: Duration::from_millis(400),
        ..Limits::default()
    };
    let fixture = fixture_with(limits, 1 << 20);
    fixture
        .server
        .set_tls(TlsMode::Require(load(&authority.files(None)).unwrap()));
    let dribble = |mut say: Box<dyn FnMut(u8) -> bool>| {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(20) && say(b'x') {
            std::thread::sleep(Duration::from_millis(20));
        }
        begun.elapsed()
    };
    // A record of 16 KiB is announced, and comes in pieces of a byte.
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(STARTTLS, &[])[0].kind, ACK);
    client.say(&[22, 3, 1, 64, 0, 1, 0, 63, 252]);
    let mut stream = client.stream.try_clone().unwrap();
    let lasted = dribble(Box::new(move |byte| stream.write_all(&[byte]).is_ok()));
    assert!(lasted < Duration::from_secs(10), "{lasted:?}");
    client.assert_closed();
    // The same with an option of 60,000 bytes, each in a record of its own.
    let mut client = encrypted(&fixture, &authority.client(None));
    let mut sent = option(3, &[0; 60_000]);
    sent.truncate(16);
    client.say(&sent);
    let lasted = dribble(Box::new(move |byte| client.try_whisper(&[byte])));
    assert!(lasted < Duration::from_secs(10), "{lasted:?}");
    eventually("both ended", || fixture.server.stats().connections == 0);
    assert_eq!(fixture.server.stats().handshakes_failed, 2);
}

/// What it does not read waits encrypted, in the queue and in the socket: no more than on a plain connection is read for it, and
/// whoever completes its requests goes on with those of others.
#[test]
fn a_client_that_asks_for_much_under_tls_and_reads_nothing_holds_up_nobody() {
    let authority = Authority::new();
    let limits = Limits {
        io_threads_max: 2,
        ..Limits::default()
    };
    let fixture = fixture_with(limits, 8 << 20);
    fixture
        .server
        .set_tls(TlsMode::Require(load(&authority.files(None)).unwrap()));
    let config = authority.client(None);
    fixture.memory.script(|script| script.slow = Some(0..4096));
    let mut deaf = ready(&fixture, &config);
    let requests: Vec<u8> = (0..1000)
        .flat_map(|number| request(0, READ, number, 0, 1 << 20))
        .collect();
    deaf.say(&requests);
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.slow = None);

    let mut other = ready(&fixture, &config);
    (fixture.memory).script(|script| script.slow = Some(4 << 20..5 << 20));
    other.say(&request(0, READ, 1, 4 << 20, 10));
    fixture.memory.wait_until(|script| script.waiting == 1);
    fixture.memory.script(|script| script.slow = None);
    assert_eq!(other.reply().errno(), 0);
    assert_eq!(other.take(10), [0; 10]);
    drop(other);
    assert_deaf_client_is_bounded(&fixture);
}

/// Who speaks without end and says nothing is dropped by the TLS library; until then its requests are answered.
#[test]
fn key_updates_without_end_neither_keep_replies_back_nor_are_served_for_ever() {
    let (fixture, authority) = secured(TlsMode::Require, 1 << 20);
    let mut client = ready(&fixture, &authority.client(None));
    fixture.memory.script(|script| script.slow = Some(0..4096));
    client.say(&request(0, READ, 1, 0, 4096));
    fixture.memory.wait_until(|script| script.waiting == 1);
    for _ in 0..20 {
        client.renew_keys();
    }
    fixture.memory.script(|script| script.slow = None);
    let reply = Reply::Simple {
        cookie: 1,
        errno: 0,
    };
    assert_eq!(client.reply(), reply);
    client.take(4096);
    let mut count = 0;
    while client.try_renew_keys() {
        count += 1;
        assert!(count < 100_000, "the server takes key updates for ever");
    }
    eventually("it ended", || fixture.server.stats().connections == 0);
}
