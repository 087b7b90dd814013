//! What holds a log within its bounds, and loses nothing that it need not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::*;
use crate::core::logs::kept::Kept;

#[test]
fn a_log_within_its_limit_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.write(&numbered_lines(0..100));
    fixture.bounded(1600, 3, true).enforce().unwrap();
    assert_eq!(fixture.names(), ["x.log"]);
}

#[test]
fn nothing_is_lost_when_the_head_is_moved() {
    for collapses in [true, false] {
        let mut fixture = Fixture::new();
        let text = numbered_lines(0..50_000);
        fixture.write(&text);
        fixture.bounded(200_000, 10, collapses).enforce().unwrap();
        let stored = fixture.stored();
        assert!(stored.concat() == text, "collapses: {collapses}");
        assert!(stored.len() > 4 && stored.iter().all(|part| part.len() <= 200_000));
        fixture.write("after\n");
        assert_eq!(last_lines(&fixture, 3), numbered_lines(49_998..50_000) + "after\n");
        assert!(new_text(&mut follow(&fixture)) == text + "after\n");
        let mode = numbered(&fixture.log(), 1).metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}

#[test]
fn what_was_moved_belongs_to_its_run() {
    let mut fixture = Fixture::new();
    fixture.write("earlier run\n");
    // The clock of file times ticks a few milliseconds at once.
    fixture.writer.set_modified(SystemTime::now() - Duration::from_secs(1)).unwrap();
    fixture.restart(5);
    let text = numbered_lines(0..20_000);
    fixture.write(&text);
    fixture.bounded(200_000, 5, true).enforce().unwrap();
    assert!(new_text(&mut follow(&fixture)) == text);
    assert!(last_lines(&fixture, u64::MAX) == text);
}

#[test]
fn the_oldest_parts_go_first() {
    for collapses in [true, false] {
        for keep in 0..3 {
            let mut fixture = Fixture::new();
            let text = numbered_lines(0..50_000);
            fixture.write(&text);
            fixture.bounded(200_000, keep, collapses).enforce().unwrap();
            let stored = fixture.stored();
            assert_eq!(stored.len() as u64, keep + 1);
            assert!(text.ends_with(&stored.concat()));
        }
    }
}

#[test]
fn a_log_that_was_rotated_or_deleted_is_shortened_and_leaves_the_parts_alone() {
    let mut fixture = Fixture::new();
    fixture.write(&numbered_lines(0..50_000));
    let mut bounded = fixture.bounded(200_000, 5, true);
    rotate(&fixture.log(), 5).unwrap();
    fixture.writer = append(&fixture.log());
    fixture.write("new\n");
    bounded.enforce().unwrap();
    assert!(bounded.size().unwrap() <= 200_000);
    assert_eq!(fixture.names(), ["x.log", "x.log.1"]);
    assert_eq!(fixture.stored()[1], "new\n");
}

#[test]
fn a_head_that_cannot_be_kept_is_dropped() {
    let mut fixture = Fixture::new();
    fixture.write(&numbered_lines(0..50_000));
    // In the way of the copy, and not to be removed.
    fs::create_dir_all(beside(&fixture.log(), "moving").join("full")).unwrap();
    let mut bounded = fixture.bounded(200_000, 2, true);
    bounded.enforce().unwrap();
    assert!(bounded.size().unwrap() <= 200_000);
    assert_eq!(fixture.names(), ["x.log", "x.log.moving"]);
}

#[test]
fn a_log_that_is_truncated_while_its_head_is_moved_costs_no_older_part() {
    for collapses in [true, false] {
        let mut fixture = Fixture::new();
        for run in ["one\n", "two\n"] {
            fixture.write(run);
            fixture.restart(4);
        }
        fixture.write("new\n");
        let mut bounded = fixture.bounded(200_000, 4, collapses);
        // What was seen and copied before it was truncated.
        assert_eq!(bounded.move_piece(800_000, 0).unwrap(), 0);
        assert_eq!(bounded.move_piece(4, 200_000).unwrap(), 0);
        assert_eq!(fixture.stored(), ["one\n", "two\n", "new\n"]);
        assert_eq!(fixture.names(), ["x.log", "x.log.1", "x.log.2"]);
        assert_eq!(bounded.collapses(), collapses);
        // The next move is like any other.
        let text = numbered_lines(0..20_000);
        fixture.write(&text);
        bounded.enforce().unwrap();
        assert!(fixture.stored().concat() == format!("one\ntwo\nnew\n{text}"));
    }
}

#[test]
fn a_deleted_log_is_put_back_and_kept_within_its_bounds() {
    for deletions in 1..3 {
        let mut fixture = Fixture::new();
        let mut reader = follow(&fixture);
        let limits = Limits { max_bytes: 200_000, keep: 100 };
        let mut kept = Kept::open(&fixture.log(), limits).unwrap().unwrap();
        let (mut written, mut read) = (0, String::new());
        let mut write = |fixture: &mut Fixture, lines| {
            fixture.write(&numbered_lines(written..written + lines));
            written += lines;
            written
        };
        for _ in 0..deletions {
            write(&mut fixture, 5000);
            read += &new_text(&mut reader);
            fs::remove_file(fixture.log()).unwrap();
            write(&mut fixture, 1000);
            read += &new_text(&mut reader);
            write(&mut fixture, 1000);
            kept.tend().unwrap();
            assert!(fixture.names().contains(&"x.log".to_owned()));
        }
        for _ in 0..40 {
            write(&mut fixture, 1000);
            kept.tend().unwrap();
            read += &new_text(&mut reader);
        }
        let total = write(&mut fixture, 0);
        assert!(read == numbered_lines(0..total), "deleted {deletions} times");
        assert!(kept.size().unwrap() <= 400_000);
        let stored = fixture.stored();
        assert!(stored.len() > 2 && stored.iter().all(|part| part.len() <= 200_000));
        assert!(numbered_lines(0..total).ends_with(&stored.concat()));
    }
}

#[test]
fn a_new_log_in_the_place_of_a_deleted_one_is_left_alone() {
    let mut fixture = Fixture::new();
    fixture.write(&numbered_lines(0..50_000));
    let mut kept = Kept::open(&fixture.log(), Limits { max_bytes: 200_000, keep: 5 }).unwrap().unwrap();
    fs::remove_file(fixture.log()).unwrap();
    fs::write(fixture.log(), "new\n").unwrap();
    kept.tend().unwrap();
    assert!(kept.size().unwrap() <= 200_000);
    assert_eq!(fixture.stored(), ["new\n"]);
}

/// A runtime that writes as fast as it can, a rotator, and a reader, all at once.
fn flood(keep: u64, lines: u64) -> (Fixture, String, bool) {
    let fixture = Fixture::new();
    let mut reader = follow(&fixture);
    let mut bounded = fixture.bounded(1 << 20, keep, true);
    let writing = AtomicBool::new(true);
    let mut read = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut writer = &fixture.writer;
            for start in (0..lines).step_by(100) {
                writer.write_all(numbered_lines(start..start + 100).as_bytes()).unwrap();
            }
            writing.store(false, Ordering::Release);
        });
        scope.spawn(|| {
            while writing.load(Ordering::Acquire) {
                bounded.enforce().unwrap();
            }
        });
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            let written = !writing.load(Ordering::Acquire);
            let progress = reader.read(&mut read).unwrap();
            if (progress == Progress::UpToDate && written) || Instant::now() > deadline {
                break;
            }
        }
    });
    let collapses = bounded.collapses();
    (fixture, String::from_utf8(read).unwrap(), collapses)
}

#[test]
fn a_flood_loses_no_line_and_doubles_none() {
    let (fixture, read, collapses) = flood(1000, 1_000_000);
    let stored = fixture.stored();
    assert!(stored.len() > 2, "{:?}", fixture.names());
    assert!(read == stored.concat(), "the reader got something else than what is stored");
    // Where the file system does not cut off heads, a few lines may be lost at each move.
    assert!(!collapses || read == numbered_lines(0..1_000_000), "something else was written");
}

#[test]
fn a_flood_stays_within_its_bound() {
    let (fixture, read, _) = flood(2, 1_000_000);
    assert_eq!(fixture.names(), ["x.log", "x.log.1", "x.log.2"]);
    assert!(fixture.stored().iter().take(2).all(|part| part.len() <= 1 << 20));
    assert!(fixture.stored().concat().lines().is_sorted());
    // What the reader got is in order, whatever it missed.
    assert!(read.lines().is_sorted());
}
