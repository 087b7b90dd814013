//! Where the last lines of a text begin, found from its end.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// How much is read at once when a file is searched backwards.
const BLOCK: usize = 64 * 1024;

/// Where the last `lines` lines of `bytes` begin. The newline at the end belongs to the last line.
pub(super) fn start_of_last(bytes: &[u8], lines: u64) -> usize {
    if lines == 0 {
        return bytes.len();
    }
    Search::new(lines, bytes.last().copied()).before(bytes).unwrap_or(0)
}

/// Where the last `lines` lines of these files, read as one text, begin: the index of a file and an offset in it.
/// Reads blocks from the end, so it takes as long as those lines are, not as the files are.
pub(super) fn start_of_last_in(files: &[(&File, u64)], lines: u64) -> io::Result<(usize, u64)> {
    let end = (files.len().saturating_sub(1), files.last().map_or(0, |(_, size)| *size));
    if lines == 0 {
        return Ok(end);
    }
    let mut block = vec![0; BLOCK];
    let mut search = None;
    for (index, (file, size)) in files.iter().enumerate().rev() {
        let mut start = *size;
        while start > 0 {
            let length = usize::try_from(start).unwrap_or(BLOCK).min(BLOCK);
            start -= length as u64;
            let bytes = &mut block[..length];
            read_at(file, bytes, start)?;
            let search = search.get_or_insert_with(|| Search::new(lines, bytes.last().copied()));
            if let Some(offset) = search.before(bytes) {
                return Ok((index, start + offset as u64));
            }
        }
    }
    Ok((0, 0))
}

/// Fills `bytes`; what a file that became shorter meanwhile does not have any more stays as it was.
fn read_at(file: &File, bytes: &mut [u8], start: u64) -> io::Result<()> {
    match file.read_exact_at(bytes, start) {
        Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => Err(error),
        _ => Ok(()),
    }
}

/// Counts newlines from the end of a text that is given block by block, last block first.
struct Search {
    /// How many newlines are still to be found, the last of them outside of what is wanted.
    newlines: u64,
}

impl Search {
    fn new(lines: u64, last: Option<u8>) -> Self {
        Self { newlines: lines.saturating_add(u64::from(last == Some(b'\n'))) }
    }

    /// The offset in `bytes` after the newline that was looked for.
    fn before(&mut self, bytes: &[u8]) -> Option<usize> {
        for (index, _) in bytes.iter().enumerate().rev().filter(|(_, byte)| **byte == b'\n') {
            self.newlines = self.newlines.saturating_sub(1);
            if self.newlines == 0 {
                return Some(index + 1);
            }
        }
        None
    }
}
