//! Files of a prompt: text and images, told apart by their content.

use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::prelude::{BASE64_STANDARD, Engine};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout};

use super::input_wait::InputWait;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::parallel::PendingValue;

/// Maximum size of a file or standard input: larger than the context of any model, and enough for a photo.
pub(in crate::cli::commands) const MAX_FILE_BYTES: u64 = 20 << 20;

/// How long a FIFO may have no program that writes to it.
const OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// How much is read at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// The content of one file.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::cli::commands) enum Attachment {
    Text(String),
    /// An image, as a `data:` URL.
    Image(String),
}

/// Reads a file, which may be a pipe. A relative path starts in the current directory. `timeout` is the idle timeout of
/// a pipe.
pub(in crate::cli::commands) fn read(
    context: &Context,
    path: &Path,
    timeout: Option<Duration>,
) -> Result<Attachment, Failure> {
    let (ui, name) = (&context.ui, path.display().to_string());
    let current = context.environment.current_dir.as_deref().unwrap_or(Path::new(""));
    let file = open(current.join(path), &name)?.map_err(|error| cannot_read(&name, &error))?;
    let notice = || ui.note(&format!("waiting for {name} to end"));
    read_all(file, &InputWait { name: &name, timeout, notice: &notice })
}

/// Opens a file. A FIFO opens only when a program opens its other end, so a thread waits for that.
fn open(path: PathBuf, name: &str) -> Result<io::Result<File>, Failure> {
    if !path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Ok(File::open(path));
    }
    let opened = PendingValue::begin(|| File::open(path)).wait(OPEN_TIMEOUT);
    opened.ok_or_else(|| {
        Failure::new(Exit::Failed, format!("{name} is a FIFO, not a file, and no program writes to it"))
    })
}

/// Reads a file to its end.
pub(super) fn read_all(mut file: File, input_wait: &InputWait<'_>) -> Result<Attachment, Failure> {
    let mut bytes = Vec::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut is_named = false;
    while bytes.len() as u64 <= MAX_FILE_BYTES {
        input_wait.wait(&mut is_named, |time| poll(&file, time))?;
        match file.read(&mut chunk) {
            Ok(0) => break,
            Ok(length) => bytes.extend_from_slice(&chunk[..length]),
            Err(error) if matches!(error.kind(), ErrorKind::Interrupted | ErrorKind::WouldBlock) => {}
            Err(error) => return Err(cannot_read(input_wait.name, &error)),
        }
    }
    attachment(input_wait.name, bytes)
}

/// Waits up to `time` until the file has data or has ended. Where the system cannot tell, a read will.
fn poll(file: &File, time: Duration) -> Option<()> {
    let mut polled = [PollFd::new(file.as_fd(), PollFlags::POLLIN)];
    // Rounded up, because less than a millisecond would be no wait.
    let time = PollTimeout::try_from(time + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    match nix::poll::poll(&mut polled, time) {
        Ok(0) | Err(Errno::EINTR) => None,
        Ok(_) | Err(_) => Some(()),
    }
}

fn cannot_read(name: &str, error: &io::Error) -> Failure {
    Failure::of(Exit::Failed, error).about(format!("cannot read {name}"))
}

/// Returns `bytes`, the content of `name`, as text or an image.
pub(in crate::cli::commands) fn attachment(name: &str, bytes: Vec<u8>) -> Result<Attachment, Failure> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("{name} is larger than the limit of {} MiB", MAX_FILE_BYTES >> 20);
        return Err(Failure::new(Exit::Failed, message));
    }
    if let Some(kind) = image_type(&bytes) {
        return Ok(Attachment::Image(format!("data:{kind};base64,{}", BASE64_STANDARD.encode(&bytes))));
    }
    // A NUL byte is valid UTF-8, but no text contains it.
    let text = match memchr::memchr(0, &bytes) {
        Some(place) => Err(place),
        None => String::from_utf8(bytes).map_err(|error| error.utf8_error().valid_up_to()),
    };
    text.map(Attachment::Text).map_err(|place| {
        let message =
            format!("{name} is neither UTF-8 text (see byte {place}) nor an image of a known format");
        Failure::new(Exit::Failed, message).hint("use a PNG, JPEG, GIF or WebP image")
    })
}

/// Returns the media type of an image by its first bytes, for the formats that models accept.
fn image_type(bytes: &[u8]) -> Option<&'static str> {
    match bytes {
        [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Some("image/png"),
        [0xff, 0xd8, 0xff, ..] => Some("image/jpeg"),
        [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Some("image/gif"),
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Some("image/webp"),
        _ => None,
    }
}

/// Returns text with its name, in a fence longer than any in the text.
pub(in crate::cli::commands) fn quote(name: &str, text: &str) -> String {
    let longest = text.split(|character| character != '`').map(str::len).max().unwrap_or_default();
    let fence = "`".repeat(longest.max(2) + 1);
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{name}:\n{fence}\n{text}{end}{fence}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_its_content() {
        let image = |bytes: &[u8]| attachment("notes.txt", bytes.to_vec()).unwrap();
        assert_eq!(
            image(b"\x89PNG\r\n\x1a\n"),
            Attachment::Image("data:image/png;base64,iVBORw0KGgo=".to_owned())
        );
        for (bytes, kind) in [
            (&b"\xff\xd8\xff\xe0"[..], "image/jpeg"),
            (b"GIF89a", "image/gif"),
            (b"RIFF\x01\x00\x00\x00WEBPVP8 ", "image/webp"),
        ] {
            assert!(
                matches!(image(bytes), Attachment::Image(url) if url.starts_with(&format!("data:{kind};")))
            );
        }
        assert_eq!(image(b"RIFFed"), Attachment::Text("RIFFed".to_owned()));
    }

    #[test]
    fn a_fence_is_longer_than_those_inside() {
        assert_eq!(quote("a.md", "one\n"), "a.md:\n```\none\n```");
        assert_eq!(quote("a.md", "````rust\n````"), "a.md:\n`````\n````rust\n````\n`````");
    }

    #[test]
    fn binary_and_huge_files_are_refused_by_name() {
        for binary in [b"ab\xff", b"ab\0"] {
            let failure = attachment("a.bin", binary.to_vec()).unwrap_err();
            assert_eq!(
                failure.message,
                "a.bin is neither UTF-8 text (see byte 2) nor an image of a known format"
            );
        }
        let huge = vec![b' '; usize::try_from(MAX_FILE_BYTES).unwrap() + 1];
        assert_eq!(
            attachment("a.txt", huge).unwrap_err().message,
            "a.txt is larger than the limit of 20 MiB"
        );
    }
}
