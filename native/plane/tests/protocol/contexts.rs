//! Contexts of changes since a snapshot: found by name, listed by namespace, and reported beside the allocation.

use super::support::client::*;
use super::*;

const ID: u128 = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
const OURS: &str = "quarry:changed:00112233-4455-6677-8899-aabbccddeeff";
const QEMUS: &str = "qemu:dirty-bitmap:00112233-4455-6677-8899-aabbccddeeff";

fn changed() -> Fixture {
    let fixture = fixture();
    let ranges = vec![4096..8192, 65536..(1 << 20)];
    fixture
        .memory
        .script(|script| script.snapshots = vec![(ID, ranges)]);
    fixture
}

fn structured(fixture: &Fixture) -> Client {
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    client
}

fn names(replies: &[OptionReply]) -> Vec<(u32, String)> {
    assert_eq!(replies.last().unwrap().kind, ACK);
    replies[..replies.len() - 1]
        .iter()
        .map(|reply| {
            let id = u32::from_be_bytes(reply.data[..4].try_into().unwrap());
            (id, String::from_utf8(reply.data[4..].to_vec()).unwrap())
        })
        .collect()
}

#[test]
fn they_are_listed_by_namespace_and_in_full() {
    let fixture = changed();
    let mut client = structured(&fixture);
    let mut list = |queries: &[&str]| -> Vec<String> {
        let replies = client.ask(9, &context_data("disk", queries));
        names(&replies).into_iter().map(|(_, name)| name).collect()
    };
    assert_eq!(list(&[]), ["base:allocation", OURS, QEMUS]);
    assert_eq!(list(&["quarry:"]), [OURS]);
    assert_eq!(list(&["quarry:changed:"]), [OURS]);
    assert_eq!(list(&["qemu:"]), [QEMUS]);
    assert_eq!(
        list(&["qemu:dirty-bitmap:", "base:"]),
        ["base:allocation", QEMUS]
    );
    assert_eq!(list(&[QEMUS]), [QEMUS]);
    let other = QEMUS.replace("00112233", "99112233");
    assert!(list(&[&other, "qemu:allocation-depth", "quarry:chang"]).is_empty());
}

#[test]
fn they_are_reported_beside_the_allocation_each_once() {
    let fixture = changed();
    let mut client = structured(&fixture);
    let other = OURS.replace("ff", "f0");
    let queries = [QEMUS, "base:allocation", &other, QEMUS, OURS, "qemu:"];
    let replies = client.ask(10, &context_data("disk", &queries));
    let chosen = [(1, QEMUS), (2, "base:allocation"), (3, OURS)];
    assert_eq!(
        names(&replies),
        chosen.map(|(id, name)| (id, name.to_string()))
    );
    client.ask(7, &info_data("disk", &[]));
    client.say(&request(0, STATUS, 1, 0, 70_000));
    let descriptors = |entries: &[(u32, u32)]| -> Vec<u8> {
        entries
            .iter()
            .flat_map(|(length, state)| [be32(*length), be32(*state)].concat())
            .collect()
    };
    let dirty = [(4096, 0), (4096, 1), (65536 - 8192, 0), (70_000 - 65536, 1)];
    for (id, flags, expected) in [
        (1, 0, &dirty[..]),
        (2, 0, &[(70_000, 3)]),
        (3, 1, &dirty[..]),
    ] {
        let payload = [be32(id), descriptors(expected)].concat();
        assert_eq!(
            client.reply(),
            Reply::Chunk {
                cookie: 1,
                flags,
                kind: 5,
                payload
            }
        );
    }
    client.say(&request(REQ_ONE, STATUS, 2, 5000, 70_000));
    let first = client.reply();
    let payload = [be32(1), descriptors(&[(3192, 1)])].concat();
    assert_eq!(
        first,
        Reply::Chunk {
            cookie: 2,
            flags: 0,
            kind: 5,
            payload
        }
    );
}

#[test]
fn a_list_is_that_of_the_negotiation() {
    let fixture = changed();
    let mut client = structured(&fixture);
    client.ask(10, &context_data("disk", &[OURS]));
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(client.write(0, 0, b"later"), 0);
    fixture.memory.script(|script| script.snapshots.clear());
    client.say(&request(REQ_ONE, STATUS, 2, 0, 4096));
    let payload = [be32(1), be32(4096), be32(0)].concat();
    assert_eq!(
        client.reply(),
        Reply::Chunk {
            cookie: 2,
            flags: 1,
            kind: 5,
            payload
        }
    );
}

#[test]
fn eight_may_be_chosen_and_a_ninth_is_too_much() {
    let fixture = changed();
    let all: Vec<(u128, Vec<std::ops::Range<u64>>)> = (0..9).map(|id| (id, Vec::new())).collect();
    fixture.memory.script(|script| script.snapshots = all);
    let queries: Vec<String> = (0..9)
        .map(|id| format!("quarry:changed:00000000-0000-0000-0000-00000000000{id}"))
        .collect();
    let queries: Vec<&str> = queries.iter().map(String::as_str).collect();
    let mut client = structured(&fixture);
    assert_eq!(
        client.ask(10, &context_data("disk", &queries[..8])).len(),
        9
    );
    assert_eq!(
        client.ask(10, &context_data("disk", &queries))[0].kind,
        ERR | 9
    );
}
