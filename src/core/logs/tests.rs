//! Logs that are read while they are written, rotated, truncated and deleted.

use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::thread;

use proptest::prelude::*;
use tempfile::TempDir;

use super::rotator::{GrowingLog, pause};
use super::*;

/// A directory with a log, written as a server writes it.
struct Fixture {
    directory: TempDir,
    writer: File,
}

impl Fixture {
    fn with(text: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let mut fixture = Self { writer: append(&directory.path().join("x.log")), directory };
        fixture.write(text);
        fixture
    }

    fn log(&self) -> PathBuf {
        self.directory.path().join("x.log")
    }

    fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    /// As a start does.
    fn restart(&mut self, keep: u64) {
        rotate(&self.log(), keep).unwrap();
        self.writer = append(&self.log());
    }

    fn growing(&self, max_bytes: u64, keep: u64) -> GrowingLog {
        GrowingLog::open(&self.log(), Limits { max_bytes, keep }).unwrap().unwrap()
    }

    fn rotate_if_full(&self, max_bytes: u64, keep: u64) -> Option<u64> {
        self.growing(max_bytes, keep).rotate_if_full().unwrap()
    }

    /// Returns the contents of the parts and the log, oldest first.
    fn stored(&self) -> Vec<String> {
        let parts = (1..).map(|number| numbered(&self.log(), number)).take_while(|part| part.exists());
        let files: Vec<PathBuf> = [self.log()].into_iter().chain(parts).collect();
        files.iter().rev().map(|path| fs::read_to_string(path).unwrap()).collect()
    }

    fn file_count(&self) -> usize {
        self.directory.path().read_dir().unwrap().count()
    }

    fn reader(&self, lines: u64) -> LogReader {
        LogReader::open(&self.log(), lines).unwrap().unwrap()
    }

    fn tail_text(&self, lines: u64) -> String {
        tail_text(&self.log(), lines).unwrap()
    }
}

fn append(path: &Path) -> File {
    files::open(path, OpenOptions::new().append(true).create(true)).unwrap()
}

/// Reads until there is nothing new; returns the text, and whether the log was truncated.
fn drain(reader: &mut LogReader) -> (String, bool) {
    let (mut bytes, mut was_truncated) = (Vec::new(), false);
    loop {
        match reader.read(&mut bytes).unwrap() {
            ReadProgress::Read => {}
            ReadProgress::Truncated => was_truncated = true,
            ReadProgress::UpToDate => return (String::from_utf8(bytes).unwrap(), was_truncated),
        }
    }
}

#[track_caller]
fn new_text(reader: &mut LogReader) -> String {
    let (text, was_truncated) = drain(reader);
    assert!(!was_truncated);
    text
}

/// Numbered lines of 16 bytes.
fn numbered_lines(numbers: std::ops::Range<u64>) -> String {
    numbers.fold(String::new(), |text, number| text + &format!("line {number:010}\n"))
}

#[test]
fn a_start_shifts_the_parts() {
    let mut fixture = Fixture::with("");
    for run in ["one\n", "two\n", "three\n", "four\n", ""] {
        fixture.write(run);
        fixture.restart(2);
    }
    assert_eq!(fixture.stored(), ["three\n", "four\n", ""], "an empty log becomes no part");
    fixture.write("five\n");
    fixture.restart(1);
    assert_eq!(fixture.stored(), ["five\n", ""]);
}

#[test]
fn a_link_or_pipe_as_log_is_refused() {
    let mut fixture = Fixture::with("one\n");
    let [link, pipe, victim] = ["x.log.1", "pipe", "victim"].map(|name| fixture.directory.path().join(name));
    fs::write(&victim, "precious\n").unwrap();
    symlink(&victim, &link).unwrap();
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    for log in [&link, &pipe] {
        assert!(rotate(log, 3).is_err());
        assert!(LogReader::open(log, u64::MAX).is_err());
        assert!(GrowingLog::open(log, Limits { max_bytes: 1, keep: 1 }).is_err());
    }
    assert_eq!(new_text(&mut fixture.reader(5)), "one\n", "a link is no part");
    fixture.restart(1);
    assert_eq!(fixture.stored(), ["one\n", ""]);
    assert_eq!(fs::read_to_string(&victim).unwrap(), "precious\n");
}

#[test]
fn long_lines_are_found_from_the_end() {
    let long = "x".repeat(1_000_000);
    let mut fixture = Fixture::with(&format!("a\n{long}"));
    assert_eq!(new_text(&mut fixture.reader(1)), long);
    assert_eq!(fixture.tail_text(1), long[..65_536]);
    assert_eq!(last_line(&fixture.log()).unwrap(), Some("x".repeat(1000)));
    fixture.write("\nlast");
    assert_eq!(fixture.tail_text(20), "last", "a line without its beginning is left out");
}

#[test]
fn messages_quote_a_log_just_rotated() {
    let mut fixture = Fixture::with("earlier run\n");
    // The clock of file times ticks every few milliseconds.
    thread::sleep(Duration::from_millis(20));
    fixture.restart(5);
    assert_eq!(fixture.tail_text(2), "");
    fixture.writer.write_all(b"one\ntwo \xff\n\n  \n").unwrap();
    assert_eq!(fixture.rotate_if_full(10, 5), Some(0));
    assert_eq!(fixture.tail_text(3), "two \u{fffd}\n\n  \n");
    assert_eq!(last_line(&fixture.log()).unwrap().as_deref(), Some("two \u{fffd}"));
    fixture.write("three");
    assert_eq!(fixture.tail_text(u64::MAX), "one\ntwo \u{fffd}\n\n  \nthree");
}

#[test]
fn follow_across_truncation() {
    let mut fixture = Fixture::with("one\n");
    let mut reader = fixture.reader(u64::MAX);
    assert_eq!(new_text(&mut reader), "one\n");
    // At the next poll the log is shorter than before, and then longer.
    for text in ["2\n", "three\nfour\n"] {
        fixture.writer.set_len(0).unwrap();
        fixture.write(text);
        assert_eq!(drain(&mut reader), (text.to_owned(), true));
    }
}

#[test]
fn follow_reports_more_rotations_than_parts() {
    let mut fixture = Fixture::with("");
    let mut reader = fixture.reader(u64::MAX);
    for start in [0, 100] {
        fixture.write(&numbered_lines(start..start + 100));
        fixture.rotate_if_full(1000, 1);
        fixture.write("more\n");
        assert_eq!(new_text(&mut reader), numbered_lines(start..start + 100) + "more\n");
    }
    for start in [200, 300] {
        fixture.write(&numbered_lines(start..start + 100));
        fixture.rotate_if_full(1000, 1);
    }
    fixture.write("now\n");
    assert_eq!(drain(&mut reader), ("now\n".to_owned(), true));
}

#[test]
fn follow_across_deletion_and_a_new_log() {
    let mut fixture = Fixture::with("one\n");
    let mut reader = fixture.reader(u64::MAX);
    assert_eq!(new_text(&mut reader), "one\n");
    fs::remove_file(fixture.log()).unwrap();
    fixture.write("two\n");
    assert_eq!(new_text(&mut reader), "two\n");
    fixture.write("three\n");
    fixture.writer = append(&fixture.log());
    fixture.write("four\n");
    assert_eq!(new_text(&mut reader), "three\nfour\n");
}

#[test]
fn a_rotation_keeps_the_newest_parts() {
    for keep in 0..3 {
        let mut fixture = Fixture::with("");
        for start in [0, 1000, 2000, 3000] {
            fixture.write(&numbered_lines(start..start + 1000));
            assert_eq!(fixture.rotate_if_full(16_000, keep), Some(16_000), "it is within its limit");
            assert_eq!(fixture.rotate_if_full(15_999, keep), Some(0));
        }
        assert!(fixture.stored().concat() == numbered_lines(4000 - 1000 * keep..4000));
        assert_eq!(fixture.file_count() as u64, keep + 1);
        let is_private = |number| numbered(&fixture.log(), number).metadata().unwrap().permissions().mode();
        assert!((1..=keep).map(is_private).all(|mode| mode & 0o777 == 0o600));
    }
    let fixture = Fixture::with(&numbered_lines(0..100_000));
    fixture.rotate_if_full(16_000, 3);
    assert!(fixture.stored().concat() == numbered_lines(96_000..100_000), "a huge log leaves its end");
}

#[test]
fn a_log_put_aside_becomes_no_part() {
    let mut fixture = Fixture::with(&numbered_lines(0..100));
    let growing = fixture.growing(1000, 5);
    fixture.restart(5);
    assert_eq!(growing.rotate_if_full().unwrap(), None);
    assert_eq!(fixture.stored(), [numbered_lines(0..100), String::new()]);
    fs::remove_file(numbered(&fixture.log(), 1)).unwrap();
    assert_eq!(growing.rotate_if_full().unwrap(), Some(0));
    assert_eq!(fixture.file_count(), 1);
}

#[test]
fn a_log_that_cannot_be_copied_is_truncated() {
    let fixture = Fixture::with(&numbered_lines(0..100));
    // In the place of the copy, and not removable like a file.
    fs::create_dir(beside(&fixture.log(), "new")).unwrap();
    assert_eq!((fixture.rotate_if_full(1000, 2), fixture.file_count()), (Some(0), 2));
}

#[test]
fn truncation_during_a_rotation_costs_no_part() {
    let mut fixture = Fixture::with("one\n");
    fixture.restart(1);
    fixture.write("new\n");
    // The size was read before another process truncated the log.
    fixture.growing(200_000, 1).copy_and_truncate(800_000).unwrap();
    assert_eq!((fixture.stored().concat().as_str(), fixture.file_count()), ("one\nnew\n", 2));
}

#[test]
fn the_rotator_sleeps_until_the_limit_is_near() {
    const MB: u64 = 1_000_000;
    for (size, grown, elapsed, expected) in [
        // Without growth, a flood may fill twice the limit.
        (0, 0, 2000, 1000),
        (30 * MB, 0, 2000, 700),
        // At the same rate, the log is full after this time.
        (40 * MB, 40 * MB, 2000, 500),
        (49 * MB, 9 * MB, 1000, 111),
        (90 * MB, 90 * MB, 1000, 10),
        (10 * MB, 10 * MB, 0, 10),
    ] {
        let pause = pause(50 * MB, size, (grown, Duration::from_millis(elapsed)));
        assert_eq!(pause, Duration::from_millis(expected), "{size} {grown} {elapsed}");
    }
    assert_eq!(pause(u64::MAX, 0, (0, Duration::MAX)), Duration::from_secs(30));
}

#[test]
fn a_reader_of_a_flood_misses_nothing_stored() {
    let mut fixture = Fixture::with("");
    let mut reader = fixture.reader(u64::MAX);
    let growing = fixture.growing(100_000, 1000);
    let read = thread::scope(|scope| {
        let server = scope.spawn(|| {
            let flood = (0..200_000).step_by(100).map(|start| {
                fixture.write(&numbered_lines(start..start + 100));
                while fixture.writer.metadata().unwrap().len() > 300_000 {
                    thread::yield_now();
                }
                new_text(&mut reader)
            });
            flood.collect::<String>()
        });
        while !server.is_finished() {
            growing.rotate_if_full().unwrap();
        }
        server.join().unwrap()
    });
    assert!(read + &new_text(&mut reader) == fixture.stored().concat());
    assert!(fixture.file_count() > 4);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens between two polls; a start removes an empty log.
    #[test]
    fn every_line_is_read_once(
        steps in prop::collection::vec((prop_oneof![Just(0_u64), 0_u64..2000], 0_u8..8), 1..20),
    ) {
        let mut fixture = Fixture::with("");
        let mut reader = fixture.reader(u64::MAX);
        let (mut written, mut read) = (0, String::new());
        for (lines, action) in steps {
            fixture.write(&numbered_lines(written..written + lines));
            written += lines;
            match action {
                0 | 1 => drop(fixture.rotate_if_full(10_000, 1000)),
                2 => fixture.restart(1000),
                3 => {}
                _ => read += &new_text(&mut reader),
            }
        }
        read += &new_text(&mut reader);
        prop_assert!(read == numbered_lines(0..written));
        prop_assert!(fixture.stored().concat() == numbered_lines(0..written));
    }

    #[test]
    fn last_lines_are_the_last_lines(text in "[a\n]{0,200}", lines in 0_u64..250) {
        let fixture = Fixture::with(&text);
        let all: Vec<&str> = text.split_inclusive('\n').collect();
        let expected = all[all.len().saturating_sub(usize::try_from(lines).unwrap())..].concat();
        prop_assert_eq!(new_text(&mut fixture.reader(lines)), expected.clone());
        prop_assert_eq!(fixture.tail_text(lines), expected);
    }
}
