//! Edits of random texts: what was asked for happens, nothing else, and no comment is lost.

use proptest::prelude::*;
use toml_edit::Document;

use super::super::template;
use super::splice;
use crate::core::config::Config;
use crate::core::runtimes::TABLE;

fn path(dotted: &str) -> Vec<String> {
    toml_edit::Key::parse(dotted).unwrap().iter().map(|key| key.get().to_owned()).collect()
}

fn set(text: &str, key: &str, value: &str) -> Option<String> {
    let path = path(key);
    let table_length = if path[0] == "prompts" { 2 } else { 1 };
    splice::set(text, &path, value, table_length, &|path| template::documented(TABLE, path))
}

fn unset(text: &str, key: &str) -> Option<String> {
    splice::unset(text, &path(key), &|path| template::documented(TABLE, path))
}

/// Every value of a text that is not a table, by its path.
fn values(text: &str) -> Option<Vec<(Vec<String>, String)>> {
    fn walk(item: &toml_edit::Item, path: &mut Vec<String>, values: &mut Vec<(Vec<String>, String)>) {
        if let Some(table) = item.as_table_like() {
            for (name, item) in table.iter() {
                path.push(name.to_owned());
                walk(item, path, values);
                path.pop();
            }
        } else if let Some(tables) = item.as_array_of_tables() {
            for (index, table) in tables.iter().enumerate() {
                path.push(index.to_string());
                walk(&toml_edit::Item::Table(table.clone()), path, values);
                path.pop();
            }
        } else {
            values.push((path.clone(), item.to_string().trim().to_owned()));
        }
    }
    let document: Document<String> = text.parse().ok()?;
    let mut values = Vec::new();
    walk(document.into_mut().as_item(), &mut Vec::new(), &mut values);
    values.sort();
    Some(values)
}

fn without(text: &str, key: &str) -> Vec<(Vec<String>, String)> {
    let mut values = values(text).unwrap();
    values.retain(|(found, _)| !found.starts_with(&path(key)));
    values
}

fn comments(text: &str) -> Vec<&str> {
    text.match_indices("# c")
        .map(|(at, _)| text[at..].split_whitespace().nth(1).unwrap_or_default())
        .collect()
}

const KEYS: &[&str] = &[
    "ollama_server.port",
    "ollama_server.host",
    "ollama_server.env",
    "ollama_server.env.A",
    "ollama_server.env.'B C'",
    "ollama_run.seed",
    "ollama_run.extra_body",
    "ollama_run.extra_body.a.b",
    "ollama_run.extra_body.t",
    "mlx_run.stop",
    "mlx_run.model",
    "prompts.review.template",
    "prompts.review.temperature",
    "prompts.'x.y'.model",
    "aliases.small",
    "aliases.small.mlx",
];

const VALUES: &[&str] =
    &["1", "'text'", "[1, 2]", "{ A = 'x', 'B C' = 'y' }", "\"\"\"two\nlines\"\"\"", "{}", "true"];

/// Lines (and some statements of several lines) of which texts are put together; `@` becomes a number.
const LINES: &[&str] = &[
    "[ollama_server]",
    "[ollama_server] # c@",
    "  [ollama_run]",
    "[mlx_run]",
    "[ollama_server.env]",
    "[ollama_run.extra_body.a]",
    "[[ollama_run.extra_body.t]]",
    "[prompts]",
    "[prompts.review]",
    "[prompts.'x.y'] # c@",
    "[aliases]",
    "[aliases.small]",
    "#[aliases]",
    "# c@",
    "\t# c@",
    "",
    "   ",
    "#seed = 42",
    "# seed = 7 # c@",
    "#port = 11434",
    "# The port it listens on.",
    "#[prompts.review]",
    "port = 1",
    "port=2# c@",
    "  port = 3   # c@",
    "host = '''a\n# no comment\n'''",
    "env.A = 'x'",
    "env . 'B C' = 'y' # c@",
    "env = { A = 'x', 'B C' = 'y' } # c@",
    "env = {}",
    "env = {A='x',}",
    "extra_body = { a.b = 1, a.c = 2 }",
    "extra_body = { a = { b = 1 } } # c@",
    "extra_body.a.b = 1",
    "extra_body.a.c = 1 # c@",
    "extra_body.t = 5",
    "seed = 5",
    "model = 'm'",
    "stop = [\n  'a',\n  'b',\n] # c@",
    "template = \"x\"",
    "temperature = 0.5 # c@",
    "small = 'm'",
    "small = { mlx = 'm' }",
    "small.mlx = 'm' # c@",
    "ollama_server.port = 4",
    "aliases.small = 'x' # c@",
    "prompts.review.template = 'x'",
    "not toml",
    "x = ",
    "'",
];

prop_compose! {
    fn any_text()(
        lines in prop::collection::vec(prop::sample::select(LINES), 0..14),
        newline in prop::sample::select(&["\n", "\r\n"][..]),
        ends in any::<bool>(),
    ) -> String {
        let numbered = lines.iter().enumerate().map(|(number, line)| line.replace('@', &number.to_string()));
        let mut text = numbered.collect::<Vec<_>>().join("\n").replace('\n', newline);
        if ends {
            text += newline;
        }
        text
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_random_set_changes_one_value_and_keeps_every_comment(
        text in any_text(),
        key in prop::sample::select(KEYS),
        value in prop::sample::select(VALUES),
    ) {
        if values(&text).is_none() {
            prop_assert_eq!(set(&text, key, value), None);
        } else if let Some(after) = set(&text, key, value) {
            prop_assert!(values(&after).is_some(), "no TOML any more:\n{after}");
            prop_assert_eq!(without(&after, key), without(&text, key), "\n{}\n-> {}", text, after);
            let read: Document<String> = after.parse().unwrap();
            let item = path(key).iter().try_fold(read.as_item(), |item, name| item.get(name.as_str())).cloned();
            let expected: Document<String> = format!("x = {value}\n").parse().unwrap();
            let plain = |item: &toml_edit::Item| super::super::values::to_json(item);
            prop_assert_eq!(item.as_ref().and_then(plain), plain(&expected["x"]), "\n{}\n-> {}", text, after);
            prop_assert_eq!(comments(&after), comments(&text), "\n{}\n-> {}", text, after);
            prop_assert_eq!(set(&after, key, value), Some(after.clone()), "a second time");
        }
    }

    #[test]
    fn a_random_unset_removes_one_value_and_keeps_every_comment(text in any_text()) {
        for key in KEYS {
            let Some(after) = unset(&text, key) else { continue };
            prop_assert!(values(&after).is_some(), "{}: no TOML any more:\n{}\n-> {}", key, text, after);
            prop_assert_eq!(values(&after).unwrap(), without(&text, key), "{}\n{}\n-> {}", key, text, after);
            prop_assert_eq!(comments(&after), comments(&text), "{}\n{}\n-> {}", key, text, after);
            prop_assert_eq!(unset(&after, key), None, "{}\n{}\n-> {}", key, text, after);
        }
    }

    #[test]
    fn random_texts_are_read_without_a_panic(text in any_text(), noise in any::<String>(), at in any::<prop::sample::Index>()) {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
        let place = places[at.index(places.len())];
        let text = format!("{}{noise}{}", &text[..place], &text[place..]);
        let (config, problems) = Config::parse(&text, TABLE);
        for problem in &problems {
            prop_assert!(problem.line >= 1 && problem.column >= 1);
            prop_assert!(!problem.to_string().is_empty());
        }
        // What is sound can be written and read back.
        prop_assert_eq!(Config::parse(&config.effective_toml(TABLE), TABLE).1.len(), 0);
        for key in KEYS {
            set(&text, key, "1");
            unset(&text, key);
        }
    }
}

#[test]
fn set_then_unset_gives_the_fresh_file_back() {
    let fresh = template::fresh(TABLE);
    for (key, value) in [
        ("ollama_server.env.A", "'x'"),
        ("ollama_run.extra_body.a.b", "1"),
        ("ollama_run.seed", "7"),
        ("mlx_run.stop", "'x'"),
        ("mlx_server.command", "['x']"),
        ("prompts.review.template", "'x'"),
    ] {
        let changed = set(&fresh, key, value).unwrap();
        assert_ne!(changed, fresh, "{key}");
        let whole = match key {
            "ollama_server.env.A" => "ollama_server.env",
            "ollama_run.extra_body.a.b" => "ollama_run.extra_body",
            "prompts.review.template" => "prompts.review",
            other => other,
        };
        assert_eq!(unset(&changed, whole).unwrap(), fresh, "{key}");
    }
}

#[test]
fn a_new_key_goes_where_it_belongs() {
    let cases = [
        // Below the key's line in the fresh file, after another comment that shows it, after the last key, or first.
        ("[ollama_run]\n#seed = 42\nx = 1\n", "[ollama_run]\nseed = 1\nx = 1\n"),
        ("[ollama_run]\n# seed = 5 # mine\nx = 1\n", "[ollama_run]\n# seed = 5 # mine\nseed = 1\nx = 1\n"),
        ("[ollama_run]\n  x = 1 # c\n\n[z]\n", "[ollama_run]\n  x = 1 # c\n  seed = 1\n\n[z]\n"),
        ("[ollama_run] # c\n\n[z]\n", "[ollama_run] # c\nseed = 1\n\n[z]\n"),
        ("[ollama_run]", "[ollama_run]\nseed = 1\n"),
        ("[ollama_run]\r\nx = 1", "[ollama_run]\r\nx = 1\r\nseed = 1\r\n"),
        ("", "[ollama_run]\nseed = 1\n"),
        ("x = 1", "x = 1\n\n[ollama_run]\nseed = 1\n"),
        ("ollama_run.x = 1\ny = 2\n", "ollama_run.x = 1\nollama_run.seed = 1\ny = 2\n"),
        ("ollama_run = { x = 1 }\n", "ollama_run = { x = 1, seed = 1 }\n"),
        ("ollama_run = {}\n", "ollama_run = { seed = 1 }\n"),
        ("ollama_run = { a.b = 1, }\n", "ollama_run = { a.b = 1, seed = 1, }\n"),
        // A line within a string is none of these.
        ("[ollama_run]\nx = '''\n#seed = 42\n'''\n", "[ollama_run]\nx = '''\n#seed = 42\n'''\nseed = 1\n"),
        // Nor is one below a header that is a comment.
        ("[ollama_run]\nx = 1\n#[z]\n#seed = 42\n", "[ollama_run]\nx = 1\nseed = 1\n#[z]\n#seed = 42\n"),
        ("#[ollama_run]\n#seed = 42\n", "[ollama_run]\nseed = 1\n"),
        ("#[ollama_run]\n[z]\ny = 1\n", "[ollama_run]\nseed = 1\n[z]\ny = 1\n"),
        ("[z]\n#[ollama_run]\ny = 1\n", "[z]\n#[ollama_run]\ny = 1\n\n[ollama_run]\nseed = 1\n"),
    ];
    for (before, after) in cases {
        assert_eq!(set(before, "ollama_run.seed", "1").as_deref(), Some(after), "{before}");
    }
}

#[test]
fn nothing_but_the_key_goes() {
    let cases = [
        ("[a]\nb = 1\nc = 2\n", "[a]\nc = 2\n"),
        ("[a]\nb = [\n1,\n] # c\nc = 2\n", "[a]\n# c\nc = 2\n"),
        ("[a]\n  b = 1 # c\r\nc = 2\n", "[a]\n  # c\r\nc = 2\n"),
        ("a.b = 1", ""),
        ("a = { b = 1 }\n", "a = {}\n"),
        ("a = { b = 1, c = 2 }\n", "a = { c = 2 }\n"),
        ("a = { c = 2, b = 1 }\n", "a = { c = 2 }\n"),
        ("a = { c = 2, b.x = 1, b.y = 2, d = 3 }\n", "a = { c = 2, d = 3 }\n"),
        ("x = 1\n\n[a.b]\nc = 1\n\n[d]\n", "x = 1\n\n[d]\n"),
        ("x = 1\n\n[a.b]\n# why\nc = 1\n\n[d]\n", "x = 1\n\n#[a.b]\n# why\n\n[d]\n"),
        ("[[a.b]]\nc = 1\n[[a.b]]\nc = 2\n", ""),
    ];
    for (before, after) in cases {
        assert_eq!(unset(before, "a.b").as_deref(), Some(after), "{before}");
    }
}
