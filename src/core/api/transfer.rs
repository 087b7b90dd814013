//! Follows the chunked transfer encoding of a response beside ureq, which drops what it has decoded from the same read
//! when a later chunk is malformed.

/// The maximum length of the line with a chunk's size, as in ureq.
const MAX_SIZE_LINE: usize = 20;

/// The position in a response. Takes the same bytes at once as ureq does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Position {
    /// Before the end of the head.
    #[default]
    Head,
    /// Before the size of a chunk.
    Size,
    /// This many bytes before the end of a chunk.
    Data(usize),
    /// After the data of a chunk and before its line end.
    DataEnd,
    /// In what is not chunked, or after the last chunk.
    Over,
    Malformed,
}

/// Follows one response.
#[derive(Debug, Default)]
pub(super) struct Transfer(Position);

impl Transfer {
    /// Takes the bytes that have arrived and are not decoded yet. Returns the data before a malformed chunk, if there
    /// is one.
    pub(super) fn take(&mut self, input: &[u8]) -> Option<Vec<u8>> {
        let (before, mut rest) = (self.0, input);
        while let Some(next) = self.0.step(&mut rest, &mut |_| {}) {
            self.0 = next;
        }
        if self.0 != Position::Malformed {
            return None;
        }
        self.0 = Position::Over;
        let (mut position, mut rest, mut data) = (before, input, Vec::new());
        while let Some(next) = position.step(&mut rest, &mut |bytes| data.extend_from_slice(bytes)) {
            position = next;
        }
        Some(data)
    }
}

impl Position {
    /// Takes the next part of the input; `None` if that has not arrived as a whole, and at the end.
    fn step(self, input: &mut &[u8], data: &mut dyn FnMut(&[u8])) -> Option<Self> {
        let all = *input;
        match self {
            Self::Head => {
                let end = memchr::memmem::find(all, b"\r\n\r\n")? + 4;
                *input = &all[end..];
                Some(after_head(&all[..end]))
            }
            Self::Size => {
                let (line, rest) = line(all)?;
                *input = rest;
                Some(match size(line) {
                    None => Self::Malformed,
                    Some(0) => Self::Over,
                    Some(size) => Self::Data(size),
                })
            }
            Self::Data(left) => {
                let (taken, rest) = all.split_at(left.min(all.len()));
                data(taken);
                *input = rest;
                match left - taken.len() {
                    0 => Some(Self::DataEnd),
                    _ if taken.is_empty() => None,
                    left => Some(Self::Data(left)),
                }
            }
            Self::DataEnd => {
                let (line, rest) = line(all)?;
                *input = rest;
                Some(if line.is_empty() { Self::Size } else { Self::Malformed })
            }
            Self::Over | Self::Malformed => None,
        }
    }
}

/// Returns the next line and what follows it.
fn line(input: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = memchr::memchr(b'\r', input).filter(|end| input.get(end + 1) == Some(&b'\n'))?;
    Some((&input[..end], &input[end + 2..]))
}

/// Returns the size of a chunk, without its extensions.
fn size(line: &[u8]) -> Option<usize> {
    let number = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
    usize::from_str_radix(number.trim(), 16).ok().filter(|_| line.len() <= MAX_SIZE_LINE)
}

/// Returns the position after a head: an interim response is followed by another one.
fn after_head(head: &[u8]) -> Position {
    let head = String::from_utf8_lossy(head).to_ascii_lowercase();
    let mut lines = head.lines();
    if lines.next().is_some_and(|status| status.split(' ').nth(1).is_some_and(|code| code.starts_with('1'))) {
        return Position::Head;
    }
    let is_chunked = lines
        .filter_map(|line| line.split_once(':'))
        .any(|(name, value)| name == "transfer-encoding" && value.trim().ends_with("chunked"));
    if is_chunked { Position::Size } else { Position::Over }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n";

    /// Returns what is found in pieces as they arrive. What ureq cannot decode yet is there again the next time.
    fn lost(pieces: &[&str]) -> Option<String> {
        let mut transfer = Transfer::default();
        pieces
            .iter()
            .find_map(|piece| transfer.take(piece.as_bytes()))
            .map(|bytes| String::from_utf8(bytes).unwrap())
    }

    #[test]
    fn data_before_a_malformed_chunk_is_found() {
        let whole = |body: &str| lost(&[&format!("{HEAD}{body}")]);
        assert_eq!(whole("5\r\nHello\r\nzz\r\n").as_deref(), Some("Hello"));
        assert_eq!(whole("2\r\nHe\r\n3;x=y\r\nllo\r\n-1\r\n").as_deref(), Some("Hello"));
        assert_eq!(whole("5\r\nHello, and more\r\n").as_deref(), Some("Hello"));
        assert_eq!(whole("zz\r\n").as_deref(), Some(""));
        assert_eq!(lost(&[HEAD, "5\r\nHel", "lo\r\nzz\r\n"]).as_deref(), Some("lo"));
        assert_eq!(lost(&[HEAD, "5\r\nHello\r\n", "z", "zz\r\n"]).as_deref(), Some(""));
        let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{HEAD}");
        assert_eq!(lost(&[&interim, "1\r\na\r\nzz\r\n"]).as_deref(), Some("a"));
    }

    #[test]
    fn sound_responses_lose_nothing() {
        assert_eq!(lost(&[HEAD, "5\r\nHello\r\n0\r\n\r\nzz\r\n"]), None);
        assert_eq!(lost(&["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nzz\r\n"]), None);
        assert_eq!(lost(&["not HTTP"]), None);
    }
}
