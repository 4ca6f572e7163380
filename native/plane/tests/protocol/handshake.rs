//! Options, one by one: what each answers, and what ends the negotiation.

use plane::limits::Limits;

use super::support::client::*;
use super::*;

#[test]
fn export_name_answers_size_and_flags_with_or_without_zeroes() {
    let fixture = fixture();
    for (flags, zeroes) in [(3, 0), (1, 124)] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(&be32(flags));
        client.say(&option(1, b"disk"));
        assert_eq!(client.take(8), be64(1 << 20));
        let transmission = u16::from_be_bytes(client.take(2).try_into().unwrap());
        // No DF: structured replies were not negotiated.
        assert_eq!(
            transmission,
            1 | 1 << 2 | 1 << 3 | 1 << 5 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11
        );
        assert_eq!(client.take(zeroes), vec![0; zeroes]);
        assert_eq!(client.write(0, 0, b"abc"), 0);
        assert_eq!(client.read(0, 3), b"abc");
    }
}

#[test]
fn export_name_of_an_unknown_export_closes() {
    let fixture = fixture();
    for name in [&b"nothing"[..], b"", b"\xff\xfe", &[b'x'; 5000]] {
        let mut client = Client::greeted(&fixture.path);
        client.say(&option(1, name));
        client.assert_closed();
    }
    eventually("failed handshakes are counted", || {
        fixture.server.stats().handshakes_failed == 4
    });
}

#[test]
fn unknown_client_flags_and_a_wrong_option_magic_close() {
    let fixture = fixture();
    let mut client = Client::connect(&fixture.path);
    client.take(18);
    client.say(&be32(7));
    client.assert_closed();
    let mut client = Client::greeted(&fixture.path);
    client.say(&[0x55; 16]);
    client.assert_closed();
}

#[test]
fn list_names_every_export_with_its_description() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    let replies = client.ask(3, &[]);
    let entry = |name: &[u8], text: &[u8]| [counted(name), text.to_vec()].concat();
    assert_eq!(
        replies
            .iter()
            .map(|reply| (reply.kind, reply.data.clone()))
            .collect::<Vec<_>>(),
        [
            (2, entry(b"a-copy", b"")),
            (2, entry(b"disk", b"the first disk")),
            (ACK, vec![]),
        ]
    );
    assert_eq!(client.ask(3, b"x")[0].kind, ERR | 3);
    assert_eq!(client.ask(2, &[])[0].kind, ACK);
    client.assert_closed();
}

#[test]
fn what_is_not_listed_is_found_by_its_exact_name_alone() {
    let fixture = fixture();
    publish_unlisted(&fixture, "a-secret", false);
    let mut client = Client::greeted(&fixture.path);
    let listed = |client: &mut Client| -> Vec<Vec<u8>> {
        client
            .ask(3, &[])
            .iter()
            .filter(|reply| reply.kind == 2)
            .map(|reply| reply.data[4..].to_vec())
            .collect()
    };
    assert_eq!(listed(&mut client), [b"diskthe first disk"]);
    for near in ["a-secre", "a-secrets", "A-secret", "a-secret\0", ""] {
        assert_eq!(client.ask(6, &info_data(near, &[]))[0].kind, ERR | 6);
    }
    assert_eq!(
        client
            .ask(7, &info_data("a-secret", &[]))
            .last()
            .unwrap()
            .kind,
        ACK
    );
    assert_eq!(client.write(0, 0, b"hidden"), 0);
    // Becoming listed, or not any more, disturbs nobody who is connected.
    publish_unlisted(&fixture, "a-secret", true);
    assert_eq!(listed(&mut Client::greeted(&fixture.path)).len(), 2);
    publish_unlisted(&fixture, "a-secret", false);
    assert_eq!(listed(&mut Client::greeted(&fixture.path)).len(), 1);
    assert_eq!(client.read(0, 6), b"hidden");
}

#[test]
fn info_tells_what_was_asked_and_go_begins_transmission() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(client.ask(8, &[])[0].kind, ACK);
    let replies = client.ask(6, &info_data("disk", &[1, 2, 3]));
    let find = |kind: u16| {
        replies
            .iter()
            .find(|reply| reply.kind == 3 && reply.data[..2] == be16(kind))
            .map(|reply| reply.data[2..].to_vec())
    };
    assert_eq!(find(0).unwrap(), [be64(1 << 20), be16(0xded)].concat());
    assert_eq!(find(1).unwrap(), b"disk");
    assert_eq!(find(2).unwrap(), b"the first disk");
    assert_eq!(
        find(3).unwrap(),
        [be32(1), be32(4096), be32(32 << 20)].concat()
    );
    let read_only = client.ask(6, &info_data("a-copy", &[]));
    let flags = u16::from_be_bytes(read_only[0].data[10..12].try_into().unwrap());
    assert_eq!(flags & 2, 2);
    for name in ["", "nope"] {
        let unknown = client.ask(7, &info_data(name, &[]));
        assert_eq!((unknown.len(), unknown[0].kind), (1, ERR | 6));
        assert!(
            String::from_utf8(unknown[0].data.clone())
                .unwrap()
                .contains("no export")
        );
    }
    assert_eq!(
        client.ask(7, &info_data("disk", &[3])).last().unwrap().kind,
        ACK
    );
    assert_eq!(client.errno(0, FLUSH, 0, 0), 0);
}

#[test]
fn malformed_and_unknown_options_are_refused_and_haggling_goes_on() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    let good = info_data("disk", &[1, 2]);
    for cut in 0..good.len() {
        assert_eq!(client.ask(6, &good[..cut])[0].kind, ERR | 3, "cut at {cut}");
    }
    assert_eq!(client.ask(6, &[&good[..], b"x"].concat())[0].kind, ERR | 3);
    assert_eq!(
        client.ask(6, &[be32(u32::MAX), vec![0; 20]].concat())[0].kind,
        ERR | 3
    );
    // PEEK, STARTTLS, EXTENDED_HEADERS, and one nobody knows.
    for (kind, error) in [(4, 1), (5, 2), (11, 3), (0xdead, 1)] {
        assert_eq!(client.ask(kind, b"some data")[0].kind, ERR | error);
    }
    assert_eq!(client.ask(0xdead, &vec![1; 64 << 10])[0].kind, ERR | 1);
    assert_eq!(
        client.ask(0xdead, &vec![1; (64 << 10) + 1])[0].kind,
        ERR | 9
    );
    assert_eq!(client.ask(8, b"x")[0].kind, ERR | 3);
    assert_eq!(
        client.ask(7, &info_data("disk", &[])).last().unwrap().kind,
        ACK
    );
}

#[test]
fn a_name_of_4096_bytes_is_served_and_a_longer_one_refused() {
    let fixture = fixture();
    let name = "n".repeat(4096);
    fixture.server.publish(
        name.clone(),
        ExportSpec {
            door: Door::Clients,
            backing: fixture.memory.clone(),
            read_only: false,
            is_listed: true,
            description: String::new(),
        },
    );
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(
        client.ask(6, &info_data(&format!("{name}n"), &[]))[0].kind,
        ERR | 3
    );
    assert_eq!(
        client.ask(7, &info_data(&name, &[])).last().unwrap().kind,
        ACK
    );
}

#[test]
fn meta_contexts_need_structured_replies_and_match_by_namespace_or_name() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    assert_eq!(
        client.ask(10, &context_data("disk", &["base:allocation"]))[0].kind,
        ERR | 3
    );
    client.ask(8, &[]);
    let names = |replies: Vec<OptionReply>| -> Vec<String> {
        assert_eq!(replies.last().unwrap().kind, ACK);
        replies
            .iter()
            .filter(|reply| reply.kind == 4)
            .map(|reply| String::from_utf8(reply.data[4..].to_vec()).unwrap())
            .collect()
    };
    for queries in [
        &[][..],
        &["base:"],
        &["base:allocation"],
        &["qemu:", "base:allocation", "base:"],
    ] {
        assert_eq!(
            names(client.ask(9, &context_data("disk", queries))),
            ["base:allocation"]
        );
    }
    assert!(
        names(client.ask(
            9,
            &context_data("disk", &["qemu:dirty-bitmap:x", "base:other"])
        ))
        .is_empty()
    );
    // SET selects by full name only; none is fine.
    for queries in [&[][..], &["base:"], &["x-y:z"]] {
        assert!(names(client.ask(10, &context_data("disk", queries))).is_empty());
    }
    assert_eq!(
        names(client.ask(
            10,
            &context_data("disk", &["base:allocation", "base:allocation"])
        )),
        ["base:allocation"]
    );
    assert_eq!(
        client.ask(10, &context_data("nope", &["base:allocation"]))[0].kind,
        ERR | 6
    );
    let good = context_data("disk", &["base:allocation"]);
    for cut in 0..good.len() {
        assert_eq!(client.ask(9, &good[..cut])[0].kind, ERR | 3, "cut at {cut}");
    }
    let long = [&good[..], b"x"].concat();
    assert_eq!(client.ask(10, &long)[0].kind, ERR | 3);
    // The failed SET above voided the selection.
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(client.errno(0, STATUS, 0, 4096), EINVAL);
}

#[test]
fn contexts_selected_for_another_export_do_not_count() {
    let fixture = fixture();
    publish_more(&fixture);
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    client.ask(10, &context_data("a-copy", &["base:allocation"]));
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(client.errno(0, STATUS, 0, 4096), EINVAL);
}

#[test]
fn a_client_gets_a_thousand_options_and_no_more() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    for _ in 0..1000 {
        assert_eq!(client.ask(4, &[])[0].kind, ERR | 1);
    }
    client.assert_closed();
}

#[test]
fn a_handshake_that_does_not_end_is_ended() {
    let fixture = fixture_with(
        Limits {
            handshake: Duration::from_millis(50),
            ..Limits::default()
        },
        1 << 20,
    );
    for said in [
        &b""[..],
        &be32(3),
        &[be32(3), option(3, &[])[..9].to_vec()].concat(),
    ] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(said);
        client.assert_closed();
    }
    eventually("counted", || fixture.server.stats().handshakes_failed == 3);
}

#[test]
fn a_client_that_knows_no_fixed_newstyle_may_only_name_its_export() {
    let fixture = fixture();
    for (flags, zeroes) in [(0, 124), (2, 0)] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(&be32(flags));
        client.say(&option(1, b"disk"));
        client.take(10 + zeroes);
        assert_eq!(client.write(0, 0, b"abc"), 0);
        assert_eq!(client.read(0, 3), b"abc");
    }
    // It would not understand an answer.
    for kind in [2, 3, 7, 8] {
        let mut client = Client::connect(&fixture.path);
        client.take(18);
        client.say(&be32(0));
        client.say(&option(kind, &[]));
        client.assert_closed();
    }
}

#[test]
fn sixty_four_queries_are_looked_at_and_more_are_too_big() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    for kind in [9, 10] {
        let mut queries = vec!["x-nobody:knows"; 63];
        queries.push("base:allocation");
        assert_eq!(client.ask(kind, &context_data("disk", &queries)).len(), 2);
        queries.push("base:allocation");
        let replies = client.ask(kind, &context_data("disk", &queries));
        assert_eq!((replies.len(), replies[0].kind), (1, ERR | 9));
        // A count that the data do not bear out is nonsense, not much.
        let lie = [counted(b"disk"), be32(u32::MAX)].concat();
        assert_eq!(client.ask(kind, &lie)[0].kind, ERR | 3);
    }
    client.ask(7, &info_data("disk", &[]));
    assert_eq!(
        client.errno(0, STATUS, 0, 4096),
        EINVAL,
        "no selection left"
    );
}

#[test]
fn a_name_comes_back_in_an_error_without_its_control_characters() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    let refused = client.ask(7, &info_data("a\0b\x1b[2Jc", &[]));
    assert_eq!(refused[0].data, b"no export named 'a?b?[2Jc'");
    let invalid = [counted(b"\xff\xfe"), be16(0)].concat();
    assert_eq!(client.ask(7, &invalid)[0].kind, ERR | 6);
    let long = client.ask(6, &info_data(&"\u{1f4be}".repeat(1024), &[]));
    assert!(long[0].data.len() < 4096);
}

#[test]
fn what_an_earlier_option_agreed_on_holds_until_go_and_unknown_information_is_ignored() {
    let fixture = fixture();
    let mut client = Client::greeted(&fixture.path);
    client.ask(8, &[]);
    client.ask(10, &context_data("disk", &["base:allocation"]));
    assert_eq!(client.ask(7, &info_data("nope", &[]))[0].kind, ERR | 6);
    assert_eq!(client.ask(5, &[])[0].kind, ERR | 2);
    let asked = client.ask(6, &info_data("disk", &[99, 1, 0, 3]));
    let again = client.ask(7, &info_data("disk", &[99, 1, 0, 3]));
    assert_eq!(
        asked.iter().map(|reply| &reply.data).collect::<Vec<_>>(),
        again.iter().map(|reply| &reply.data).collect::<Vec<_>>()
    );
    client.say(&request(0, STATUS, 1, 0, 4096));
    assert!(matches!(client.reply(), Reply::Chunk { kind: 5, .. }));
}
