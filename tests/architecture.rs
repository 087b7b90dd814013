//! The map of docs/architecture.md holds: layers point downwards, and no files import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The layers of the crate, from the bottom: each may use those before its own line, and none on its line.
const LAYERS: [&[&str]; 4] = [&["env"], &["core"], &["app"], &["cli", "gateway", "mcp"]];

/// The modules of core, from the bottom: each may use those of the lines before its own.
const CORE: [&[&str]; 12] = [
    &["json_object", "numbers", "order", "sorted_map"],
    &[
        "address",
        "buffers",
        "cancel",
        "command_line",
        "executables",
        "gpu",
        "machine",
        "names",
        "parallel",
        "paths",
        "pid",
        "schema",
        "timestamp",
    ],
    &["files", "nearest"],
    &["api", "login", "process"],
    &["events", "helper"],
    &["awake", "models"],
    &["runtimes"],
    &["agents", "config"],
    &["aliases", "logs", "programs", "templates"],
    &["services"],
    &["install"],
    &["doctor"],
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries =
        std::fs::read_dir(directory).expect("the source").map(|entry| entry.expect("a file").path());
    let files = entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] });
    files.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

/// A file's module path, such as `["core", "api", "chat"]`.
fn module(file: &Path) -> Vec<String> {
    let name = file.strip_prefix(root()).expect("below src").with_extension("");
    name.iter().map(|part| part.to_string_lossy().into_owned()).collect()
}

/// The code of a file without comments and without its tests.
fn code(file: &Path) -> String {
    let text = std::fs::read_to_string(file).expect("source is text");
    let code = text.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate::`, `super::` or `self::`, absolute, with the groups of `use` unfolded.
fn paths(module: &[String], code: &str) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (start, word) in ["crate::", "super::", "self::"]
        .iter()
        .flat_map(|word| code.match_indices(word).map(|(at, _)| (at, *word)).collect::<Vec<_>>())
    {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        // `super::super::` is read from its first word, and `macro_crate::` is another word.
        if code[..start].ends_with(|before: char| is_word(before) || before == ':') {
            continue;
        }
        let (mut base, mut rest) = match word {
            "crate::" => (Vec::new(), &code[start + word.len()..]),
            _ => (module.to_vec(), &code[start..]),
        };
        while let Some(after) = rest.strip_prefix("super::") {
            base.pop();
            rest = after;
        }
        rest = rest.strip_prefix("self::").unwrap_or(rest);
        unfold(&base, rest, &mut found);
    }
    found
}

/// Adds the paths that begin with the last word of `path`, the name of an imported module: `commands::up::run`.
fn through_name(path: &[String], code: &str, found: &mut Vec<Vec<String>>) {
    let name = format!("{}::", path.last().expect("a path has words"));
    for (at, _) in code.match_indices(&name) {
        let is_within = |before: char| before.is_alphanumeric() || before == '_' || before == ':';
        if !code[..at].ends_with(is_within) {
            unfold(path, &code[at + name.len()..], found);
        }
    }
}

/// Adds the paths that `text` begins with: `a::b`, or `a::{b, c::{d}}`.
fn unfold(base: &[String], text: &str, found: &mut Vec<Vec<String>>) {
    let mut path = base.to_vec();
    let mut rest = text.trim_start();
    loop {
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 1;
            let end = group.find(|character| {
                depth += i32::from(character == '{') - i32::from(character == '}');
                depth == 0
            });
            let group = &group[..end.unwrap_or(group.len())];
            let (mut depth, mut begin) = (0, 0);
            for (at, character) in group.char_indices().chain([(group.len(), ',')]) {
                depth += i32::from(character == '{') - i32::from(character == '}');
                if character == ',' && depth == 0 {
                    unfold(&path, &group[begin..at], found);
                    begin = at + 1;
                }
            }
            return;
        }
        let end = rest.find(|character: char| !(character.is_alphanumeric() || character == '_'));
        let (word, after) = rest.split_at(end.unwrap_or(rest.len()));
        if !word.is_empty() {
            path.push(word.to_owned());
        }
        match after.strip_prefix("::") {
            Some(after) if !word.is_empty() => rest = after,
            _ => break,
        }
    }
    found.push(path);
}

/// The files that each file uses.
fn graph() -> BTreeMap<Vec<String>, BTreeSet<Vec<String>>> {
    let files = files(&root());
    let modules: BTreeSet<Vec<String>> = files.iter().map(|file| module(file)).collect();
    let mut graph = BTreeMap::new();
    for file in &files {
        let own = module(file);
        let code = code(file);
        let mut paths = paths(&own, &code);
        let imported: Vec<_> = paths.iter().filter(|path| modules.contains(*path)).cloned().collect();
        for path in imported {
            through_name(&path, &code, &mut paths);
        }
        let used = paths.into_iter().filter_map(|mut path| {
            while !path.is_empty() && !modules.contains(&path) {
                path.pop();
            }
            (!path.is_empty() && path != own).then_some(path)
        });
        graph.insert(own.clone(), used.collect());
    }
    graph
}

fn position(layers: &[&[&str]], name: &str) -> usize {
    let found = layers.iter().position(|layer| layer.contains(&name));
    found.unwrap_or_else(|| panic!("{name} is in no layer"))
}

#[test]
fn paths_are_read_from_code() {
    let own = ["core".to_owned(), "services".to_owned(), "start".to_owned()];
    let code = "use crate::core::{api::{Client, ApiError}, cancel}; use super::state::State;\nsuper::super::env::x();";
    let read: BTreeSet<String> = paths(&own, code).iter().map(|path| path.join("::")).collect();
    let expected = [
        "core::api::Client",
        "core::api::ApiError",
        "core::cancel",
        "core::services::state::State",
        "core::env::x",
    ];
    assert_eq!(read, expected.map(str::to_owned).into_iter().collect());
}

#[test]
fn layers_use_only_lower_layers() {
    for (file, used) in graph() {
        let ["lib" | "main", ..] = file.iter().map(String::as_str).collect::<Vec<_>>()[..] else {
            let own = position(&LAYERS, &file[0]);
            for path in used.iter().filter(|path| path[0] != file[0]) {
                assert!(position(&LAYERS, &path[0]) < own, "{} uses {}", file.join("::"), path.join("::"));
            }
            continue;
        };
    }
}

#[test]
fn core_modules_use_only_lower_ones() {
    for (file, used) in graph().iter().filter(|(file, _)| file[0] == "core" && file.len() > 1) {
        let own = position(&CORE, &file[1]);
        for path in used.iter().filter(|path| path[0] == "core" && path.len() > 1 && path[1] != file[1]) {
            assert!(position(&CORE, &path[1]) < own, "{} uses {}", file.join("::"), path.join("::"));
        }
    }
}

/// A parent may dispatch to its children, and they may use what it declares; all other circles are told.
#[test]
fn no_files_import_each_other_in_a_circle() {
    let mut graph = graph();
    for (file, used) in &mut graph {
        used.retain(|path| !path.starts_with(file));
    }
    // Takes away files that use no other, again and again: what is left uses itself.
    loop {
        let free: Vec<_> =
            graph.iter().filter(|(_, used)| used.is_empty()).map(|(file, _)| file.clone()).collect();
        if free.is_empty() {
            break;
        }
        graph.retain(|file, _| !free.contains(file));
        for used in graph.values_mut() {
            used.retain(|path| !free.contains(path));
        }
    }
    let left: Vec<String> = graph
        .iter()
        .map(|(file, used)| {
            let used: Vec<String> = used.iter().map(|path| path.join("::")).collect();
            format!("{} uses {}", file.join("::"), used.join(", "))
        })
        .collect();
    assert!(left.is_empty(), "circles among\n{}", left.join("\n"));
}

#[test]
fn only_the_command_line_knows_clap() {
    for file in files(&root()) {
        let own = module(&file);
        if own[0] != "cli" {
            assert!(!code(&file).contains("clap"), "{} uses clap", own.join("::"));
        }
    }
}

#[test]
fn only_the_terminal_writes_escape_codes() {
    for file in files(&root()) {
        let own = module(&file);
        let reads_them = own == ["core", "models", "hub", "tool"];
        if !own.starts_with(&["cli".to_owned(), "terminal".to_owned()]) && !reads_them {
            let code = code(&file);
            assert!(!code.contains(r"\x1b") && !code.contains(r"\u{1b}"), "{} has some", own.join("::"));
        }
    }
}

/// Every other file of core asks `port.rs`, which makes the error.
#[test]
fn port_conflicts_are_detected_in_one_file() {
    let own = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    let (detects, declares) = (own(&["core", "services", "port"]), own(&["core", "services", "error"]));
    let core = files(&root()).into_iter().filter(|file| module(file)[0] == "core");
    let makers: Vec<_> = core
        .filter(|file| code(file).contains("ServiceError::PortInUse"))
        .map(|file| module(&file))
        .filter(|module| *module != declares)
        .collect();
    assert_eq!(makers, [detects]);
}

/// All else is handed the table, which another program can have a longer one of.
#[test]
fn only_the_program_takes_the_global_table() {
    let is_test = |module: &[String]| module.last().is_some_and(|name| name == "tests" || name == "faults");
    let takes_it = |file: &PathBuf| {
        let is_word = |character: char| character.is_alphanumeric() || character == '_';
        code(file).split(|character| !is_word(character)).any(|word| word == "TABLE")
    };
    let mut takers: Vec<String> = files(&root())
        .iter()
        .filter(|file| takes_it(file))
        .map(|file| module(file))
        .filter(|module| !is_test(module))
        .map(|module| module.join("::"))
        .collect();
    takers.sort();
    assert_eq!(takers, ["core::runtimes", "lib"]);
}

/// Every place that the table of questions names is there: "`function` in `path`", or a path alone.
#[test]
fn every_place_on_the_map_exists() {
    let root = root();
    let root = root.parent().expect("the root of the project");
    let map = std::fs::read_to_string(root.join("docs/architecture.md")).expect("the map");
    let mut questions = 0;
    for row in map.lines().filter(|line| line.starts_with("| ") && line.contains("`src/")) {
        questions += 1;
        let place = row.split('|').nth(2).expect("a second column");
        let words: Vec<&str> = place.split('`').skip(1).step_by(2).collect();
        for (index, path) in words.iter().enumerate().filter(|(_, word)| word.starts_with("src/")) {
            let file = root.join(path);
            assert!(file.exists(), "{row}");
            let names = words[..index].iter().rev().take_while(|word| !word.starts_with("src/"));
            for name in names {
                let text = std::fs::read_to_string(&file).expect("source is text");
                let declared =
                    ["fn", "struct", "enum"].iter().any(|kind| text.contains(&format!("{kind} {name}")));
                assert!(declared, "{path} has no {name}: {row}");
            }
        }
    }
    assert!(questions >= 15, "{questions} questions");
}

/// A file that is longer has more than one thing to say.
#[test]
fn no_file_has_more_than_600_lines() {
    for file in files(&root()) {
        let lines = std::fs::read_to_string(&file).expect("source is text").lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

/// The types that a file declares, those of its tests, too; not the associated types of traits.
fn declared_types(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter_map(|line| {
        let code = line.trim_start();
        let mut words = code.split(|character: char| !(character.is_alphanumeric() || character == '_'));
        let mut words =
            words.by_ref().filter(|word| !matches!(*word, "" | "pub" | "super" | "crate" | "self" | "in"));
        let declares = match words.next()? {
            "struct" | "enum" | "trait" | "union" => true,
            "type" => code == line,
            _ => false,
        };
        words.next().filter(|name| declares && name.starts_with(char::is_uppercase))
    })
}

#[test]
fn a_type_name_stands_for_one_thing() {
    let read: Vec<&str> =
        declared_types("pub(super) struct A;\n    enum B<'a> {\n    type Err = C;\ntype D = E;").collect();
    assert_eq!(read, ["A", "B", "D"]);
    let mut declared: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for file in files(&root()) {
        let text = std::fs::read_to_string(&file).expect("source is text");
        for name in declared_types(&text) {
            declared.entry(name.to_owned()).or_default().push(module(&file).join("::"));
        }
    }
    declared.retain(|_, places| places.len() > 1);
    assert!(declared.is_empty(), "types with one name: {declared:#?}");
}

/// What else there is to say of a file follows in paragraphs of its own.
#[test]
fn every_file_opens_with_one_sentence() {
    for file in [files(&root()), files(&root().with_file_name("tests"))].concat() {
        let text = std::fs::read_to_string(&file).expect("source is text");
        let lines = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim);
        let head = lines.take_while(|line| !line.is_empty()).collect::<Vec<_>>().join(" ");
        let ends = head.match_indices(". ").count() + usize::from(head.ends_with(['.', ':']));
        assert_eq!(ends, 1, "{} opens with {head:?}", file.display());
    }
}
