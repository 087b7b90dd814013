//! What a streamed answer costs at least: posts the second argument to the address in the first, and copies what
//! comes back to standard output, unparsed.

use std::io::{Read, Write};
use std::net::TcpStream;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(body)) = (arguments.next(), arguments.next()) else {
        panic!("HOST:PORT BODY");
    };
    let mut stream = TcpStream::connect(&address).expect("a server");
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).expect("sent");
    let mut stdout = std::io::stdout().lock();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer).expect("read") {
            0 => break,
            length => stdout.write_all(&buffer[..length]).expect("written"),
        }
    }
}
