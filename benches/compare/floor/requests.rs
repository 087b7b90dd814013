//! Sends a request to each address in the arguments, all at once: what `ps` costs at least.

use std::io::{Error, Read, Write};
use std::net::TcpStream;
use std::thread;

fn main() -> Result<(), Error> {
    let threads: Vec<_> =
        std::env::args().skip(1).map(|argument| thread::spawn(move || request(&argument))).collect();
    threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err(Error::other("a panic"))))
}

fn request(argument: &str) -> Result<(), Error> {
    let (address, path) = argument.split_once('/').ok_or_else(|| Error::other("usage: HOST:PORT/PATH"))?;
    let mut stream = TcpStream::connect(address)?;
    let request = format!("GET /{path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let mut response = Vec::new();
    stream.read_to_end(&mut response)?;
    if response.starts_with(b"HTTP/1.1 200") { Ok(()) } else { Err(Error::other("not status 200")) }
}
