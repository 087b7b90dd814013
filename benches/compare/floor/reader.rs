//! Posts the second argument to the address in the first and copies the response to standard output, unparsed: what a
//! streamed answer costs at least.

use std::io::{Read, Write};
use std::net::TcpStream;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(address), Some(body)) = (arguments.next(), arguments.next()) else {
        return Err("usage: reader HOST:PORT BODY".into());
    };
    let mut stream = TcpStream::connect(&address)?;
    let request = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes())?;
    let mut stdout = std::io::stdout().lock();
    let mut buffer = [0; 16 * 1024];
    loop {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            length => stdout.write_all(&buffer[..length])?,
        }
    }
}
