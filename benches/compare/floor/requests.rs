//! What `ps` costs at least: two requests at once, sent to the addresses in the arguments, nothing else.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::thread;

fn main() {
    let threads: Vec<_> = std::env::args()
        .skip(1)
        .map(|argument| {
            thread::spawn(move || {
                let (address, path) = argument.split_once('/').expect("HOST:PORT/PATH");
                let mut stream = TcpStream::connect(address).expect("a server");
                let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
                stream.write_all(request.as_bytes()).expect("sent");
                let mut reply = Vec::new();
                stream.read_to_end(&mut reply).expect("read");
                assert!(reply.starts_with(b"HTTP/1.1 200"));
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("an answer");
    }
}
