//! Serves one volume in memory: `memory_server SOCKET_PATH_OR_HOST:PORT SIZE_BYTES`. For trying clients, and for measuring the protocol
//! layer without a disk. Ends when its standard input does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

#[path = "../tests/support/memory.rs"]
mod memory;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use plane::export::{Door, ExportSpec};
use plane::limits::Limits;
use plane::server::Server;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let (Some(address), Some(size)) = (
        arguments.get(1),
        arguments.get(2).and_then(|size| size.parse().ok()),
    ) else {
        eprintln!("usage: memory_server SOCKET_PATH_OR_HOST:PORT SIZE_BYTES");
        std::process::exit(2);
    };
    let address = if address.starts_with('/') {
        format!("unix:{address}")
    } else {
        address.clone()
    };
    let server = Server::new(Limits::default());
    let backing = Arc::new(memory::Memory::new(size));
    for name in ["", "memory"] {
        let spec = ExportSpec {
            door: Door::Clients,
            backing: backing.clone(),
            read_only: false,
            is_listed: true,
            description: "a volume in memory".into(),
        };
        server.publish(name.into(), spec);
    }
    println!("{}", server.listen(&address).expect("listen"));
    // Until the pipe or terminal that started us goes away.
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
    println!("{:?}", server.stats());
    server.close(Duration::from_secs(5));
}
