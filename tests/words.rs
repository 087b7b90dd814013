//! The vocabulary: words that have a plainer one are nowhere in code, tests, help or docs, and the names of tests are
//! short.

use std::path::{Path, PathBuf};

/// Words and phrases that occur nowhere, in lower case. A `*` at the end stands for any ending.
const NOWHERE: [&str; 26] = [
    "stranger",
    "strangers",
    "somebody",
    "whoever",
    "usurp*",
    "patience",
    "heed*",
    "undisturbed",
    "glance",
    "glances",
    "recipe",
    "recipes",
    "daemon",
    "daemons",
    "let go of",
    "for ever",
    "as you like",
    "none of them",
    "no earlier",
    "thoughts",
    "the most tokens",
    "worth keeping",
    "in the making",
    "begun",
    "so that",
    "short name*",
];

/// Names of others, in which a word stands for what they mean by it.
const NAMES: [&str; 2] = ["daemon-reload", "daemon off"];

/// Where prose and code of the project are, and the endings of their files.
const PLACES: [&str; 8] = ["src", "tests", "benches", "docs", ".github", ".ci", "packaging", "README.md"];
const ENDINGS: [&str; 6] = ["rs", "md", "py", "snap", "toml", "yml"];

fn files(path: &Path, found: &mut Vec<PathBuf>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).expect("a directory").flatten() {
            files(&entry.path(), found);
        }
    } else {
        let ending = path.extension().and_then(|ending| ending.to_str());
        // Scripts without an ending are prose, too; recorded streams and bodies of servers are not ours.
        if ending.is_none_or(|ending| ENDINGS.contains(&ending)) {
            found.push(path.to_owned());
        }
    }
}

/// Returns the text in lower case, names split into their words.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut was_lower = false;
    for character in text.chars() {
        if character.is_uppercase() && was_lower {
            plain.push(' ');
        }
        was_lower = character.is_lowercase();
        plain.push(if character == '_' { ' ' } else { character.to_ascii_lowercase() });
    }
    plain
}

/// Returns whether `line`, which is [`plain`], has the word or phrase.
fn has(line: &str, word: &str) -> bool {
    let (word, any_ending) = word.strip_suffix('*').map_or((word, false), |start| (start, true));
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(char::is_alphanumeric)
            && (any_ending || !after.is_some_and(char::is_alphanumeric))
    })
}

#[test]
fn plain_text_finds_words_inside_names() {
    assert!(has(&plain("fn a_stranger_is_left()"), "stranger"));
    assert!(has(&plain("struct LockPatience"), "patience"));
    assert!(has(&plain("const START_PATIENCE"), "patience"));
    assert!(has(&plain("it heeded that"), "heed*"));
    assert!(!has(&plain("impatience"), "patience"));
}

#[test]
fn words_with_a_plainer_one_are_nowhere() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for place in PLACES {
        files(&root.join(place), &mut all);
    }
    let mut found = Vec::new();
    for file in all.iter().filter(|file| !file.ends_with("tests/words.rs")) {
        // What is not text has no words.
        let Ok(text) = std::fs::read_to_string(file) else { continue };
        for (number, line) in text.lines().enumerate() {
            let line = NAMES.iter().fold(plain(line), |line, name| line.replace(name, ""));
            for word in NOWHERE.iter().filter(|word| has(&line, word)) {
                let place = file.strip_prefix(root).expect("below the root").display();
                found.push(format!("{place}:{}: {word}", number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{} places\n{}", found.len(), found.join("\n"));
}

/// The names of the tests in a file.
fn test_names(text: &str) -> Vec<&str> {
    let mut lines = text.lines().map(str::trim_start);
    let mut names = Vec::new();
    while lines.by_ref().any(|line| line == "#[test]") {
        let function = lines.by_ref().find_map(|line| line.strip_prefix("fn "));
        names.extend(function.and_then(|line| line.split('(').next()));
    }
    names
}

#[test]
fn test_names_have_at_most_eight_words() {
    assert_eq!(
        test_names("#[test]\n#[ignore]\nfn a_b() {}\nfn c() {}\n    #[test]\n    fn d() {}"),
        ["a_b", "d"]
    );
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    files(&root.join("src"), &mut all);
    files(&root.join("tests"), &mut all);
    let mut long = Vec::new();
    for file in all.iter().filter(|file| file.extension().is_some_and(|ending| ending == "rs")) {
        let text = std::fs::read_to_string(file).expect("source is text");
        long.extend(
            test_names(&text).into_iter().filter(|name| name.split('_').count() > 8).map(str::to_owned),
        );
    }
    assert!(long.is_empty(), "{long:#?}");
}
