//! Logs that are read while they are written, moved, rotated, truncated and deleted.

mod bounds;
mod following;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;

use super::bound::Bounded;
use super::*;

/// A directory with a log in it that is written as a runtime does.
struct Fixture {
    directory: TempDir,
    writer: File,
}

impl Fixture {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let writer = append(&directory.path().join("x.log"));
        Self { directory, writer }
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("x.log")
    }

    fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    /// As at the start of a runtime.
    fn restart(&mut self, keep: u64) {
        rotate(&self.log(), keep).unwrap();
        self.writer = append(&self.log());
    }

    fn bounded(&self, max_bytes: u64, keep: u64, collapses: bool) -> Bounded {
        let mut bounded = Bounded::open(&self.log(), Limits { max_bytes, keep }).unwrap().unwrap();
        if !collapses {
            bounded.never_collapse();
        }
        bounded
    }

    /// The parts and the log, oldest first, as they lie there.
    fn stored(&self) -> Vec<String> {
        let numbers = (1..=last_part(&self.log())).rev();
        let mut files: Vec<PathBuf> = numbers.map(|number| numbered(&self.log(), number)).collect();
        files.push(self.log());
        files.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn append(path: &Path) -> File {
    files::open(path, OpenOptions::new().append(true).create(true)).unwrap()
}

/// Reads until there is nothing new.
fn drain(reader: &mut Reader) -> (String, Vec<Progress>) {
    let (mut bytes, mut told) = (Vec::new(), Vec::new());
    loop {
        match reader.read(&mut bytes).unwrap() {
            Progress::Read => {}
            Progress::UpToDate => return (String::from_utf8(bytes).unwrap(), told),
            other => told.push(other),
        }
    }
}

fn new_text(reader: &mut Reader) -> String {
    let (text, told) = drain(reader);
    assert_eq!(told, []);
    text
}

fn follow(fixture: &Fixture) -> Reader {
    Reader::open(&fixture.log(), Start::Beginning).unwrap().unwrap()
}

fn last_lines(fixture: &Fixture, lines: u64) -> String {
    new_text(&mut Reader::open(&fixture.log(), Start::LastLines(lines)).unwrap().unwrap())
}

/// Numbered lines of 16 bytes.
fn numbered_lines(numbers: std::ops::Range<u64>) -> String {
    numbers.fold(String::new(), |text, number| text + &format!("line {number:010}\n"))
}

#[test]
fn rotation_shifts_the_parts_and_removes_those_beyond_the_limit() {
    let mut fixture = Fixture::new();
    for run in ["one\n", "two\n", "three\n", "four\n"] {
        fixture.write(run);
        fixture.restart(2);
    }
    assert_eq!(fixture.stored(), ["three\n", "four\n", ""]);
    fixture.write("five\n");
    fixture.restart(1);
    assert_eq!(fixture.stored(), ["five\n", ""]);
    fixture.write("six\n");
    fixture.restart(0);
    assert_eq!(fixture.stored(), [""]);
}

#[test]
fn an_empty_log_takes_no_place_of_an_older_one() {
    let mut fixture = Fixture::new();
    fixture.write("one\n");
    fixture.restart(1);
    fixture.restart(1);
    assert_eq!(fixture.stored(), ["one\n", ""]);
}

#[test]
fn a_log_that_is_not_there_is_rotated_and_read_without_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("x.log");
    rotate(&log, 3).unwrap();
    assert!(Reader::open(&log, Start::Beginning).unwrap().is_none());
    assert_eq!(last_line(&log).unwrap(), None);
    assert_eq!(tail_text(&log, 3).unwrap(), "");
}

#[test]
fn a_symlinked_log_is_neither_read_nor_moved() {
    let fixture = Fixture::new();
    let [link, victim] = ["link.log", "victim"].map(|name| fixture.directory.path().join(name));
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, &link).unwrap();
    assert!(matches!(rotate(&link, 3), Err(FileError::SymbolicLink { path }) if path == link));
    assert!(matches!(Reader::open(&link, Start::Beginning), Err(FileError::SymbolicLink { .. })));
    assert!(Bounded::open(&link, Limits { max_bytes: 1, keep: 1 }).is_err());
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    assert_eq!(fixture.names(), ["link.log", "victim", "x.log"]);
}

#[test]
fn a_pipe_in_the_place_of_the_log_does_not_hang() {
    let directory = tempfile::tempdir().unwrap();
    let log = directory.path().join("x.log");
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(matches!(Reader::open(&log, Start::Beginning), Err(FileError::NotAFile { .. })));
    assert!(rotate(&log, 3).is_err());
}

#[test]
fn symlinked_parts_are_no_parts() {
    let mut fixture = Fixture::new();
    let victim = fixture.directory.path().join("victim");
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, numbered(&fixture.log(), 1)).unwrap();
    fixture.write("one\n");
    assert_eq!(last_lines(&fixture, 5), "one\n");
    fixture.restart(1);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
    assert_eq!(fixture.stored(), ["one\n", ""]);
}

#[test]
fn last_lines_are_found_whatever_the_log_looks_like() {
    let long = "x".repeat(1_000_000);
    for (text, lines, expected) in [
        ("", 3, ""),
        ("a\nb\nc\n", 0, ""),
        ("a\nb\nc\n", 1, "c\n"),
        ("a\nb\nc\n", 2, "b\nc\n"),
        ("a\nb\nc\n", 3, "a\nb\nc\n"),
        ("a\nb\nc\n", u64::MAX, "a\nb\nc\n"),
        ("a\nb\nno newline", 1, "no newline"),
        ("a\nb\nno newline", 2, "b\nno newline"),
        ("\n\n\n", 2, "\n\n"),
        (&format!("a\n{long}\nb\n"), 2, &format!("{long}\nb\n")),
        (&format!("a\n{long}"), 1, &long),
    ] {
        let mut fixture = Fixture::new();
        fixture.write(text);
        assert_eq!(last_lines(&fixture, lines), expected, "{} bytes, {lines}", text.len());
    }
}

#[test]
fn messages_quote_the_last_lines() {
    let mut fixture = Fixture::new();
    fixture.writer.write_all(b"one\ntwo \xff\n\n  \n").unwrap();
    assert_eq!(last_line(&fixture.log()).unwrap().as_deref(), Some("two \u{fffd}"));
    assert_eq!(tail_text(&fixture.log(), 3).unwrap(), "two \u{fffd}\n\n  \n");
    fixture.write(&"x".repeat(1_000_000));
    assert_eq!(last_line(&fixture.log()).unwrap(), Some("x".repeat(1000)));
    fixture.write("\nlast");
    assert_eq!(tail_text(&fixture.log(), 20).unwrap(), "last");
}

#[test]
fn what_the_system_says_of_a_file_keeps_its_kind() {
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded, io::ErrorKind::UnexpectedEof] {
        let error = FileError::io("write", Path::new("x.log"))(kind.into());
        assert_eq!(io::Error::from(error).kind(), kind);
    }
}

#[test]
fn messages_quote_what_was_just_moved_away() {
    let mut fixture = Fixture::new();
    fixture.write("earlier run\n");
    // The clock of file times ticks a few milliseconds at once.
    std::thread::sleep(Duration::from_millis(20));
    fixture.restart(5);
    assert_eq!(tail_text(&fixture.log(), 2).unwrap(), "");
    fixture.write(&numbered_lines(0..20_000));
    fixture.bounded(200_000, 5, false).enforce().unwrap();
    assert_eq!(fixture.log().metadata().unwrap().len(), 0);
    assert_eq!(tail_text(&fixture.log(), 2).unwrap(), numbered_lines(19_998..20_000));
    assert_eq!(last_line(&fixture.log()).unwrap().as_deref(), Some("line 0000019999"));
    fixture.write("the last words\n");
    assert_eq!(tail_text(&fixture.log(), 2).unwrap(), numbered_lines(19_999..20_000) + "the last words\n");
    assert_eq!(tail_text(&fixture.log(), u64::MAX).unwrap().len(), 64 * 1024 / 16 * 16 - 16 + 15);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens between two looks, the reader gets every line once.
    #[test]
    fn every_line_is_read_once(
        steps in prop::collection::vec((0_u64..3000, 0_u8..8), 1..20),
        collapses: bool,
    ) {
        let mut fixture = Fixture::new();
        let mut reader = follow(&fixture);
        let (mut written, mut read) = (0, String::new());
        let mut bounded = fixture.bounded(1 << 17, 1000, collapses);
        for (lines, action) in steps {
            fixture.write(&numbered_lines(written..written + lines));
            written += lines;
            match action {
                0 | 1 => bounded.enforce().unwrap(),
                2 => {
                    fixture.restart(1000);
                    bounded = fixture.bounded(1 << 17, 1000, collapses);
                }
                3 => {}
                _ => read += &new_text(&mut reader),
            }
        }
        read += &new_text(&mut reader);
        prop_assert!(read == numbered_lines(0..written));
    }

    /// The same as splitting the text into lines and taking the last.
    #[test]
    fn last_lines_are_the_last_lines(text in "[a\n]{0,200}", lines in 0_u64..250) {
        let mut fixture = Fixture::new();
        fixture.write(&text);
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        let expected = all[all.len().saturating_sub(usize::try_from(lines).unwrap())..].concat();
        prop_assert_eq!(last_lines(&fixture, lines), expected.clone());
        prop_assert_eq!(tail_text(&fixture.log(), lines).unwrap(), expected);
    }
}
