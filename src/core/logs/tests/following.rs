//! A reader that follows a log, whatever becomes of it.

use super::*;

#[test]
fn follow_across_truncation() {
    let mut fixture = Fixture::new();
    let mut reader = follow(&fixture);
    fixture.write("one\n");
    assert_eq!(new_text(&mut reader), "one\n");
    fixture.writer.set_len(0).unwrap();
    fixture.write("2\n");
    assert_eq!(drain(&mut reader), ("2\n".to_owned(), vec![Progress::Truncated]));
    // Longer than before at the next look.
    fixture.writer.set_len(0).unwrap();
    fixture.write("three\nfour\n");
    assert_eq!(drain(&mut reader), ("three\nfour\n".to_owned(), vec![Progress::Truncated]));
}

#[test]
fn follow_across_rotation() {
    let mut fixture = Fixture::new();
    let mut reader = follow(&fixture);
    fixture.write("one\n");
    assert_eq!(new_text(&mut reader), "one\n");
    fixture.write("two\n");
    fixture.restart(3);
    fixture.write("three\n");
    fixture.restart(3);
    assert_eq!(new_text(&mut reader), "two\nthree\n");
    fixture.write("four\n");
    assert_eq!(new_text(&mut reader), "four\n");
}

#[test]
fn follow_across_copy_and_truncate_by_somebody_else() {
    let mut fixture = Fixture::new();
    let mut reader = follow(&fixture);
    fixture.write("one\n");
    assert_eq!(new_text(&mut reader), "one\n");
    fixture.write("two\n");
    fs::copy(fixture.log(), numbered(&fixture.log(), 1)).unwrap();
    fixture.writer.set_len(0).unwrap();
    fixture.write("three, longer than what was there before\n");
    assert_eq!(new_text(&mut reader), "two\nthree, longer than what was there before\n");
}

#[test]
fn follow_across_deletion_and_a_new_log() {
    let mut fixture = Fixture::new();
    let mut reader = follow(&fixture);
    fixture.write("one\n");
    fs::remove_file(fixture.log()).unwrap();
    assert_eq!(new_text(&mut reader), "one\n");
    fixture.write("two\n");
    assert_eq!(new_text(&mut reader), "two\n");
    fixture.write("three\n");
    fixture.writer = append(&fixture.log());
    fixture.write("four\n");
    assert_eq!(new_text(&mut reader), "three\nfour\n");
}

#[test]
fn a_reader_that_was_overtaken_says_so_and_goes_on_with_what_is_kept() {
    let mut fixture = Fixture::new();
    let mut reader = follow(&fixture);
    fixture.write(&numbered_lines(0..1000));
    fixture.bounded(8000, 1, false).enforce().unwrap();
    assert!(new_text(&mut reader) == numbered_lines(500..1000));
    let mut bounded = fixture.bounded(8000, 1, false);
    for start in [1000, 2000, 3000] {
        fixture.write(&numbered_lines(start..start + 1000));
        bounded.enforce().unwrap();
    }
    let (text, told) = drain(&mut reader);
    assert_eq!(told, [Progress::Overtaken]);
    assert!(text == numbered_lines(3500..4000));
}
