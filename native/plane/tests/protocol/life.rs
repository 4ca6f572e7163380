//! The life of exports, connections and the server.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::sync::mpsc;

use plane::limits::Limits;
use plane::server::Server;

use super::support::client::*;
use super::*;

#[test]
fn unpublish_ends_connections_and_reports_when_no_more_io_can_happen() {
    let fixture = fixture();
    let mut idle = Client::ready(&fixture.path, false);
    let mut slow = Client::ready(&fixture.path, false);
    fixture.memory.script(|script| script.slow = Some(0..1));
    slow.say(&request(0, READ, 1, 0, 1));
    fixture.memory.wait_until(|script| script.waiting == 1);
    let (done, waiting) = mpsc::channel();
    fixture
        .server
        .unpublish("disk", Box::new(move || done.send(()).unwrap()));
    idle.assert_closed();
    slow.assert_closed();
    assert_eq!(
        Client::greeted(&fixture.path).ask(7, &info_data("disk", &[]))[0].kind,
        ERR | 6
    );
    assert!(
        waiting.try_recv().is_err(),
        "a request is still in the io pool"
    );
    fixture.memory.script(|script| script.slow = None);
    waiting.recv_timeout(Duration::from_secs(20)).unwrap();
    let (done, waiting) = mpsc::channel();
    fixture
        .server
        .unpublish("never published", Box::new(move || done.send(()).unwrap()));
    waiting.try_recv().unwrap();
}

#[test]
fn publishing_the_same_again_keeps_connections_and_another_backing_ends_them() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let spec = |backing| ExportSpec {
        door: Door::Clients,
        backing,
        read_only: false,
        is_listed: true,
        description: String::new(),
    };
    fixture
        .server
        .publish("disk".into(), spec(fixture.memory.clone()));
    assert_eq!(client.errno(0, CACHE, 0, 1), 0);
    fixture.server.publish(
        "disk".into(),
        spec(std::sync::Arc::new(support::memory::Memory::new(4096))),
    );
    client.assert_closed();
    let mut client = Client::ready(&fixture.path, false);
    assert_eq!(client.errno(0, CACHE, 4096, 1), EINVAL);
}

#[test]
fn close_answers_what_is_in_flight_and_then_ends_every_connection() {
    let fixture = fixture();
    fixture.memory.script(|script| script.holds_flushes = true);
    let mut busy = Client::ready(&fixture.path, false);
    let mut idle = Client::ready(&fixture.path, false);
    let mut haggling = Client::greeted(&fixture.path);
    busy.say(&request(0, FLUSH, 1, 0, 0));
    fixture
        .memory
        .wait_until(|script| script.held_flushes.len() == 1);
    let server = fixture.server.clone();
    let closing = std::thread::spawn(move || server.close(Duration::from_secs(10)));
    idle.assert_closed();
    haggling.assert_closed();
    fixture
        .memory
        .script(|script| script.held_flushes.pop().unwrap())(Ok(()));
    assert_eq!(
        busy.reply(),
        Reply::Simple {
            cookie: 1,
            errno: 0
        }
    );
    busy.assert_closed();
    closing.join().unwrap();
    assert_eq!(fixture.server.stats().connections, 0);
    assert!(!fixture.path.exists());
}

#[test]
fn a_socket_is_private_and_replaces_only_a_dead_one() {
    let fixture = fixture();
    assert_eq!(
        std::fs::metadata(&fixture.path)
            .unwrap()
            .permissions()
            .mode()
            & 0o777,
        0o600
    );
    let address = format!("unix:{}", fixture.path.display());
    let second = Server::new(Limits::default());
    assert_eq!(
        second.listen(&address).unwrap_err().kind(),
        std::io::ErrorKind::AddrInUse
    );
    assert_eq!(Client::ready(&fixture.path, false).errno(0, CACHE, 0, 1), 0);
    let stale = fixture.path.with_extension("stale");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    second.listen(&format!("unix:{}", stale.display())).unwrap();
    Client::greeted(&stale).ask(3, &[]);
    let file = fixture.path.with_extension("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(second.listen(&format!("unix:{}", file.display())).is_err());
    assert_eq!(std::fs::read(&file).unwrap(), b"precious");
    second.close(Duration::from_secs(5));
}

#[test]
fn tcp_gets_a_port_and_serves_on_it() {
    let fixture = fixture();
    let address = fixture.server.listen("127.0.0.1:0").unwrap();
    let mut stream = std::net::TcpStream::connect(&address).unwrap();
    let mut greeting = [0; 18];
    std::io::Read::read_exact(&mut stream, &mut greeting).unwrap();
    assert_eq!(greeting[..8], *b"NBDMAGIC");
    drop(stream);
    fixture.server.close(Duration::from_secs(5));
    assert!(std::net::TcpStream::connect(&address).is_err());
}

#[test]
fn connections_beyond_the_limit_are_closed_and_a_place_is_taken_again() {
    let fixture = fixture_with(
        Limits {
            connections_max: 2,
            ..Limits::default()
        },
        1 << 20,
    );
    let first = Client::ready(&fixture.path, false);
    let _second = Client::ready(&fixture.path, false);
    Client::connect(&fixture.path).assert_closed();
    drop(first);
    eventually("a place is free", || {
        fixture.server.stats().connections == 1
    });
    assert_eq!(Client::ready(&fixture.path, false).errno(0, CACHE, 0, 1), 0);
}

#[test]
fn unpublish_waits_for_everybody_who_came_through_the_name() {
    let fixture = fixture();
    fixture.memory.script(|script| script.slow = Some(0..1));
    let mut first = Client::ready(&fixture.path, false);
    first.say(&request(0, READ, 1, 0, 1));
    fixture.memory.wait_until(|script| script.waiting == 1);
    // The name changes hands while a request of the old backing is under way.
    let other = std::sync::Arc::new(support::memory::Memory::new(4096));
    let spec = ExportSpec {
        door: Door::Clients,
        backing: other,
        read_only: false,
        is_listed: true,
        description: String::new(),
    };
    fixture.server.publish("disk".into(), spec);
    first.assert_closed();
    let mut second = Client::ready(&fixture.path, false);
    assert_eq!(second.errno(0, CACHE, 0, 1), 0);
    let ended: Vec<mpsc::Receiver<()>> = (0..2)
        .map(|_| {
            let (done, waiting) = mpsc::channel();
            fixture
                .server
                .unpublish("disk", Box::new(move || done.send(()).unwrap()));
            waiting
        })
        .collect();
    second.assert_closed();
    eventually("the second connection ended", || {
        fixture.server.stats().connections == 0
    });
    for waiting in &ended {
        assert!(waiting.try_recv().is_err(), "a read is still under way");
    }
    fixture.memory.script(|script| script.slow = None);
    for waiting in ended {
        waiting.recv_timeout(Duration::from_secs(20)).unwrap();
    }
}

#[test]
fn publishing_in_another_mode_ends_connections_too() {
    let fixture = fixture();
    let mut client = Client::ready(&fixture.path, false);
    let spec = ExportSpec {
        door: Door::Clients,
        backing: fixture.memory.clone(),
        read_only: true,
        is_listed: true,
        description: String::new(),
    };
    fixture.server.publish("disk".into(), spec);
    client.assert_closed();
    assert_eq!(Client::ready(&fixture.path, false).write(0, 0, b"x"), EPERM);
}

/// The moment between a handshake's look at the table and the connection's first request.
#[test]
fn nobody_attaches_to_an_export_that_is_gone() {
    let table = plane::export::ExportTable::default();
    let spec = ExportSpec {
        door: Door::Clients,
        backing: std::sync::Arc::new(support::memory::Memory::new(4096)),
        read_only: false,
        is_listed: true,
        description: String::new(),
    };
    table.publish("disk".into(), spec);
    let export = table.get("disk", Door::Clients).unwrap();
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    let socket = std::sync::Arc::new(std::os::fd::OwnedFd::from(ours));
    assert!(export.attach(1, socket.clone(), 9).is_some());
    let (done, waiting) = mpsc::channel();
    table.unpublish("disk", Box::new(move || done.send(()).unwrap()));
    waiting.try_recv().unwrap();
    assert!(export.attach(2, socket, 9).is_none());
}

#[test]
fn close_cuts_off_who_does_not_read_when_grace_is_over() {
    let fixture = fixture_with(Limits::default(), 64 << 20);
    let mut deaf = Client::ready(&fixture.path, false);
    for number in 0..4 {
        deaf.say(&request(0, READ, number, 0, 32 << 20));
    }
    eventually("replies are under way", || {
        rustix::io::ioctl_fionread(&deaf.stream).unwrap() > 0
    });
    fixture.server.close(Duration::from_millis(100));
    assert_eq!(fixture.server.stats().connections, 0);
}

/// On TCP what a client sends is received although this side stopped reading.
#[test]
fn close_does_not_wait_for_a_client_that_never_stops_asking() {
    let fixture = fixture();
    let address = fixture.server.listen("127.0.0.1:0").unwrap();
    let mut restless = std::net::TcpStream::connect(&address).unwrap();
    restless
        .write_all(&[be32(3), option(1, b"disk")].concat())
        .unwrap();
    let mut reader = restless.try_clone().unwrap();
    let reading = std::thread::spawn(move || {
        // To the end, or a reset: whatever ends it is right.
        let _ = std::io::copy(&mut reader, &mut std::io::sink());
    });
    let (started, waiting) = mpsc::channel();
    let writing = std::thread::spawn(move || {
        let requests = request(0, CACHE, 1, 0, 1).repeat(100);
        while restless.write_all(&requests).is_ok() {
            // Nobody counts any more.
            let _ = started.send(());
        }
    });
    for _ in 0..100 {
        waiting.recv().unwrap();
    }
    let begin = Instant::now();
    fixture.server.close(Duration::from_secs(60));
    assert!(begin.elapsed() < Duration::from_secs(20));
    assert_eq!(fixture.server.stats().connections, 0);
    writing.join().unwrap();
    reading.join().unwrap();
}

#[test]
fn an_export_takes_as_many_connections_as_it_may_and_says_so_to_the_next() {
    let limits = Limits {
        export_connections_max: 2,
        ..Limits::default()
    };
    let fixture = fixture_with(limits, 1 << 20);
    publish_more(&fixture);
    let mut first = Client::ready(&fixture.path, false);
    let mut second = Client::ready(&fixture.path, false);
    for client in [&mut first, &mut second] {
        assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
    }
    let mut third = Client::greeted(&fixture.path);
    let refused = third.ask(7, &info_data("disk", &[]));
    assert_eq!((refused.len(), refused[0].kind), (1, ERR | 2));
    // Asking about it, and other exports, are not concerned.
    let asked = third.ask(6, &info_data("disk", &[]));
    assert_eq!(asked.last().unwrap().kind, ACK);
    let mut other = Client::greeted(&fixture.path);
    let replies = other.ask(7, &info_data("a-copy", &[]));
    assert_eq!(replies.last().unwrap().kind, ACK);
    drop(first);
    eventually("there is room again", || {
        third.ask(7, &info_data("disk", &[])).last().unwrap().kind == ACK
    });
    assert_eq!(third.errno(0, FLUSH, 0, 0), 0);
    assert_eq!(second.errno(0, FLUSH, 0, 0), 0);
}
