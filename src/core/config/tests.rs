//! Reading and editing of fresh, chosen and random texts.

use proptest::prelude::*;
use toml::de::{DeTable, DeValue};

use super::edit::to_toml;
use super::keys;
use super::kind::Key;
use super::schema::TableKind;
use super::{
    Config, GatewaySettings, KeyPath, ModelSettings, SavedPrompt, ServiceSettings, TemplateSettings, render,
    splice, values,
};
use crate::core::runtimes::TABLE;

fn key(dotted: &str) -> KeyPath {
    dotted.parse().unwrap()
}

fn set(text: &str, dotted: &str, value: &str) -> Option<String> {
    let key = key(dotted);
    let comment = key.value(TABLE).map(|facts| facts.comment).unwrap_or_default();
    splice::set(text, key.parts(), value, &comment, key.table_length())
}

fn unset(text: &str, dotted: &str) -> Option<String> {
    splice::unset(text, key(dotted).parts())
}

#[test]
fn fresh_file_holds_the_defaults() {
    let (config, problems) = Config::parse(&render::fresh(TABLE), TABLE);
    assert_eq!(problems, []);
    assert_eq!(config.effective_toml(TABLE), Config::default_for(TABLE).effective_toml(TABLE));
}

#[test]
fn effective_file_can_be_read_back() {
    let text = "[ollama_server]\nenv = { A = 'b' }\nstop_timeout = 0.5\nlog_max_size = 1500\n\
                [mlx_run]\nextra_body = { x = [1, { y = 2.5 }] }\nstop = 'x'\nmax_tokens = 5\n\
                [templates.x]\nstart_command = \"A=1 'b c' {port}\"\nport_range = [80, 90]\nenv = { C = '${HOME}' }\n\
                [instances.z]\ntemplate = 'x'\ntags = ['t']\nworking_dir = '/'\nport = 81\n\
                [instances.a]\ntemplate = 'mlx'\nmodel = 'm'\nport = 7\n[instances.a.run]\nseed = 3\n\
                [gateway]\nmax_memory = '16GiB'\nidle_timeout = 0\n[models.m]\nkeep_alive = '10m'\n\
                [prompts.'a b']\nsystem = \"\"\n[aliases]\n'x:y' = { ollama = 'z' }\nw = 'v'\n";
    let (config, problems) = Config::parse(text, TABLE);
    assert_eq!(problems, []);
    let written = config.effective_toml(TABLE);
    let (again, problems) = Config::parse(&written, TABLE);
    assert_eq!(problems, [], "{written}");
    assert_eq!(again.effective_toml(TABLE), written);
    assert_eq!(again.aliases, config.aliases);
    assert_eq!(again.prompts, config.prompts);
    assert_eq!(again.services, config.services);
    assert_eq!(again.templates, config.templates);
    assert_eq!(again.instances, config.instances);
    assert_eq!(again.instances.iter().map(|(name, _)| &**name).collect::<Vec<_>>(), ["z", "a"]);
    assert_eq!(again.gateway, config.gateway);
    assert_eq!(again.models, config.models);
}

#[test]
fn every_key_has_a_valid_example() {
    let base = "[templates.comfy]\nstart_command = 'x'\ndefault_port = 8188\n\
                [instances.any]\ntemplate = 'comfy'\n[instances.coder]\ntemplate = 'mlx'\n";
    let (config, problems) = Config::parse(&format!("{base}[prompts.'a b']\n[models.'m:1']\n"), TABLE);
    assert_eq!(problems, []);
    for dotted in config.keys(TABLE) {
        let key = key(&dotted);
        let example = key.example(TABLE).unwrap_or_else(|| panic!("{dotted} has no example"));
        let value = to_toml(key.value(TABLE).unwrap().spelling, &example).unwrap();
        // Both say what is started.
        let base = if dotted == "templates.comfy.command" {
            unset(base, "templates.comfy.start_command").unwrap()
        } else {
            base.to_owned()
        };
        let base = if dotted == "templates.comfy.port_range" {
            unset(&base, "instances.any").unwrap()
        } else {
            base
        };
        let text = set(&base, &dotted, &value).unwrap();
        assert_eq!(Config::parse(&text, TABLE).1, [], "{text}");
    }
}

/// The keys of a table of `docs/configuration.md`, with the defaults of each service that has them.
fn reference<T: 'static>(keys: &[&'static Key<T>], owners: &[(&str, T)]) -> String {
    let code = |value: &serde_json::Value| format!("`{}`", values::to_toml(value).unwrap());
    let row = |key: &&Key<T>| {
        let defaults: Vec<_> =
            owners.iter().filter_map(|(name, owner)| Some((name, code(&key.write(owner)?)))).collect();
        let default = match defaults.as_slice() {
            [] => String::new(),
            [(_, first), rest @ ..]
                if owners.len() == defaults.len() && rest.iter().all(|(_, other)| other == first) =>
            {
                first.clone()
            }
            each => {
                each.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>().join(", ")
            }
        };
        let [name, meaning, expected, example] =
            [key.facts.name, key.facts.meaning, &key.facts.kind.expected(), key.facts.example]
                .map(|cell| cell.replace('|', "\\|"));
        format!("| `{name}` | {meaning} | {expected} | {default} | `{example}` |\n")
    };
    let head = "| key | meaning | value | default | example |\n|---|---|---|---|---|\n".to_owned();
    head + &keys.iter().map(row).collect::<String>()
}

#[test]
fn documentation_has_every_key() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    let documentation = std::fs::read_to_string(path).unwrap();
    let services: Vec<_> =
        TABLE.iter().map(|runtime| (runtime.name(), ServiceSettings::default_for(*runtime))).collect();
    let mut tables = TableKind::ALL
        .map(|part| {
            let keys = TABLE.iter().map(|runtime| part.keys(*runtime)).max_by_key(Vec::len).unwrap();
            reference(&keys, &services)
        })
        .to_vec();
    tables.push(reference(&keys::PROMPT.iter().collect::<Vec<_>>(), &[("", SavedPrompt::default())]));
    tables.push(reference(&keys::INSTANCE.iter().collect::<Vec<_>>(), &[]));
    tables.push(reference(&keys::TEMPLATE.iter().collect::<Vec<_>>(), &[("", TemplateSettings::new("x"))]));
    tables.push(reference(&keys::GATEWAY.iter().collect::<Vec<_>>(), &[("", GatewaySettings::default())]));
    tables.push(reference(&keys::MODEL.iter().collect::<Vec<_>>(), &[("", ModelSettings::default())]));
    tables.push(reference(&keys::TOP.iter().collect::<Vec<_>>(), &[]));
    let missing: Vec<String> =
        tables.into_iter().filter(|table| !documentation.contains(&format!("\n{table}\n"))).collect();
    assert!(missing.is_empty(), "{path} must have:\n{}", missing.join("\n"));
    let fresh = render::fresh(TABLE);
    assert!(
        documentation.contains(&format!("```toml\n{fresh}```\n")),
        "{path} must have this file:\n{fresh}"
    );
}

#[test]
fn new_key_goes_below_its_table() {
    for (before, after) in [
        ("[ollama_run]\n  x = 1 # c\n\n[z]\n", "[ollama_run]\n  x = 1 # c\n  seed = 1\n\n[z]\n"),
        ("[ollama_run]\nx = [\n1,\n] # c\n# d\n", "[ollama_run]\nx = [\n1,\n] # c\nseed = 1\n# d\n"),
        ("[ollama_run] # c\n\n[z]\n", "[ollama_run] # c\nseed = 1\n\n[z]\n"),
        ("[ollama_run]", "[ollama_run]\nseed = 1\n"),
        ("[ollama_run]\r\nx = 1", "[ollama_run]\r\nx = 1\r\nseed = 1\r\n"),
        ("", "[ollama_run]\nseed = 1\n"),
        ("\u{feff}", "\u{feff}[ollama_run]\nseed = 1\n"),
        ("# mine\n", "# mine\n\n[ollama_run]\nseed = 1\n"),
        ("x = 1", "x = 1\n\n[ollama_run]\nseed = 1\n"),
        ("[ollama_run.a]\nx = 1\n", "[ollama_run.a]\nx = 1\n\n[ollama_run]\nseed = 1\n"),
        ("ollama_run.x = 1\ny = 2\n[z]\n", "ollama_run.x = 1\ny = 2\nollama_run.seed = 1\n[z]\n"),
        ("ollama_run = { x = 1 }\n", "ollama_run = { x = 1, seed = 1 }\n"),
        ("ollama_run = {}\n", "ollama_run = { seed = 1 }\n"),
        ("ollama_run = { a.b = 1, }\n", "ollama_run = { a.b = 1, seed = 1, }\n"),
        // Where `unset` has left its comment.
        (
            "[ollama_run]\n  # Sampling seed, for answers that can be repeated\nx = 1\n",
            "[ollama_run]\n  # Sampling seed, for answers that can be repeated\n  seed = 1\nx = 1\n",
        ),
    ] {
        assert_eq!(set(before, "ollama_run.seed", "1").as_deref(), Some(after), "{before}");
    }
}

#[test]
fn new_member_goes_into_its_table() {
    for (before, after) in [
        ("[ollama_run]\n", "[ollama_run]\nextra_body.b = 1\n"),
        (
            "[ollama_run]\nextra_body.a = 2\nx = 1\n",
            "[ollama_run]\nextra_body.a = 2\nx = 1\nextra_body.b = 1\n",
        ),
        ("[ollama_run]\nextra_body = { a = 2 } # c\n", "[ollama_run]\nextra_body = { a = 2, b = 1 } # c\n"),
        ("[ollama_run.extra_body]\na = 2\n", "[ollama_run.extra_body]\na = 2\nb = 1\n"),
        (
            "[ollama_run.extra_body.c]\n[ollama_run]\n",
            "[ollama_run.extra_body.c]\n[ollama_run]\nextra_body.b = 1\n",
        ),
    ] {
        assert_eq!(set(before, "ollama_run.extra_body.b", "1").as_deref(), Some(after), "{before}");
    }
    assert_eq!(set("ollama_run.extra_body = 5\n", "ollama_run.extra_body.b", "1"), None);
    assert_eq!(set("[[ollama_run]]\n", "ollama_run.seed", "1"), None);
}

#[test]
fn nothing_but_the_key_goes() {
    for (before, after) in [
        ("[a]\nb = 1\nc = 2\n", "[a]\nc = 2\n"),
        ("[a]\n# why\nb = 1\nc = 2\n", "[a]\n# why\nc = 2\n"),
        ("[a]\nb = [\n1,\n] # c\nc = 2\n", "[a]\n# c\nc = 2\n"),
        ("[a]\n  b = 1 # c\r\nc = 2\n", "[a]\n  # c\r\nc = 2\n"),
        ("a.b = 1", ""),
        ("a = { b = 1 }\n", "a = {}\n"),
        ("a = { b = 1, c = 2 }\n", "a = { c = 2 }\n"),
        ("a = { c = 2, b = 1 }\n", "a = { c = 2 }\n"),
        ("a = { c = 2, b.x = 1, b.y = 2, d = 3 }\n", "a = { c = 2, d = 3 }\n"),
        ("a = { # first\n b = 1,\n c = 2 }\n", "a = { # first\n \n c = 2 }\n"),
        ("a.b = { b = 1 }\nc = 1\n", "c = 1\n"),
        ("x = 1\n\n[a.b]\nc = 1\n\n[d]\n", "x = 1\n\n[d]\n"),
        ("x = 1\r\n\r\n[a.b]\r\nc = 1\r\n\r\n[d]\r\n", "x = 1\r\n\r\n[d]\r\n"),
        ("x = 1\n\n[a.b] # c\n# why\nc = 1\n\n[d]\n", "x = 1\n\n# c\n# why\n\n[d]\n"),
        ("[[a.b]]\nc = 1\n[[a.b]]\nc = 2\n", ""),
    ] {
        assert_eq!(unset(before, "a.b").as_deref(), Some(after), "{before}");
    }
}

#[test]
fn set_after_unset_gives_the_fresh_file_back() {
    let fresh = render::fresh(TABLE);
    for (dotted, value) in [
        ("ollama_server.port", "11434"),
        ("ollama_run.system_prompt", "\"You are a helpful assistant.\""),
        ("mlx_run.stream", "false"),
    ] {
        let without = unset(&fresh, dotted).unwrap();
        assert_ne!(without, fresh, "{dotted}");
        assert_eq!(set(&without, dotted, value).as_deref(), Some(&*fresh), "{dotted}");
    }
}

#[test]
fn unset_after_set_gives_the_fresh_file_back() {
    let fresh = render::fresh(TABLE);
    for (dotted, value, whole) in [
        ("ollama_server.env.A", "'x'", "ollama_server.env"),
        ("ollama_run.extra_body.a.b", "1", "ollama_run.extra_body"),
        ("ollama_run.seed", "7", "ollama_run.seed"),
        ("mlx_server.command", "['x']", "mlx_server.command"),
        ("prompts.review.template", "'x'", "prompts.review"),
    ] {
        let changed = set(&fresh, dotted, value).unwrap();
        assert_ne!(changed, fresh, "{dotted}");
        assert_eq!(unset(&changed, whole).as_deref(), Some(&*fresh), "{dotted}");
    }
}

/// Every value of a text that is not a table, by its path; `None` if the text is not TOML.
fn all_values(text: &str) -> Option<Vec<(Vec<String>, String)>> {
    fn walk(value: &DeValue<'_>, path: &mut Vec<String>, values: &mut Vec<(Vec<String>, String)>) {
        let members: Vec<(String, &DeValue<'_>)> = match value {
            DeValue::Table(table) => {
                table.iter().map(|(name, value)| (name.get_ref().to_string(), value.get_ref())).collect()
            }
            DeValue::Array(array) => {
                array.iter().enumerate().map(|(index, value)| (index.to_string(), value.get_ref())).collect()
            }
            other => return values.push((path.clone(), format!("{other:?}"))),
        };
        for (name, value) in members {
            path.push(name);
            walk(value, path, values);
            path.pop();
        }
    }
    let table = DeTable::parse(text).ok()?.into_inner();
    let mut values = Vec::new();
    walk(&DeValue::Table(table), &mut Vec::new(), &mut values);
    values.sort();
    Some(values)
}

fn values_without(text: &str, dotted: &str) -> Vec<(Vec<String>, String)> {
    let mut values = all_values(text).unwrap();
    values.retain(|(path, _)| !path.starts_with(key(dotted).parts()));
    values
}

fn comments(text: &str) -> Vec<&str> {
    text.match_indices("# c")
        .map(|(at, _)| text[at..].split_whitespace().nth(1).unwrap_or_default())
        .collect()
}

/// Whether `after` is `before` with something put in at one place, or taken out.
fn differ_at_one_place(before: &str, after: &str) -> bool {
    let (short, long) = if before.len() < after.len() { (before, after) } else { (after, before) };
    let (short, long) = (short.as_bytes(), long.as_bytes());
    let prefix = short.iter().zip(long).take_while(|(one, other)| one == other).count();
    let suffix = short.iter().rev().zip(long.iter().rev()).take_while(|(one, other)| one == other).count();
    prefix + suffix >= short.len()
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

/// Lines (and some statements of several lines) from which texts are composed; `@` becomes a number.
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
    "# c@",
    "\t# c@",
    "",
    "   ",
    "# Sampling seed, for answers that can be repeated",
    "port = 1",
    "port=2# c@",
    "  port = 3   # c@",
    "host = '''a\n# no comment\n'''",
    "env.A = 'x'",
    "env . 'B C' = 'y' # c@",
    "env = { A = 'x', 'B C' = 'y' } # c@",
    "env = {}",
    "env = {A='x',}",
    "env = {\n  A = 'x', # inner\n  'B C' = 'y'\n}",
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
        has_bom in any::<bool>(),
    ) -> String {
        let numbered = lines.iter().enumerate().map(|(number, line)| line.replace('@', &number.to_string()));
        let mut text = numbered.collect::<Vec<_>>().join("\n").replace('\n', newline);
        if ends {
            text += newline;
        }
        if has_bom { format!("\u{feff}{text}") } else { text }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_set_changes_one_value_only(
        text in any_text(),
        dotted in prop::sample::select(KEYS),
        value in prop::sample::select(VALUES),
    ) {
        let leads_through_tables = DeTable::parse(&text).is_ok_and(|root| {
            let key = key(dotted);
            let (_, parents) = key.parts().split_last().unwrap();
            let mut value = Some(DeValue::Table(root.into_inner()));
            parents.iter().all(|name| {
                value = value.as_ref().and_then(|value| value.get(name.as_str()).map(|value| value.get_ref().clone()));
                value.as_ref().is_none_or(DeValue::is_table)
            })
        });
        let after = set(&text, dotted, value);
        prop_assert_eq!(after.is_some(), leads_through_tables, "\n{}\n-> {:?}", text, after);
        if let Some(after) = after {
            prop_assert!(all_values(&after).is_some(), "no TOML any more:\n{after}");
            prop_assert_eq!(values_without(&after, dotted), values_without(&text, dotted), "\n{}\n-> {}", text, after);
            let root = DeTable::parse(&after).unwrap().into_inner();
            let item = key(dotted).parts().iter().try_fold(DeValue::Table(root), |value, name| {
                value.get(name.as_str()).map(|value| value.get_ref().clone())
            });
            let expected = DeValue::parse(value).unwrap().into_inner();
            prop_assert_eq!(item.as_ref().and_then(values::to_json), values::to_json(&expected), "\n{}\n-> {}", text, after);
            prop_assert_eq!(comments(&after), comments(&text), "\n{}\n-> {}", text, after);
            prop_assert_eq!(set(&after, dotted, value), Some(after.clone()), "a second time");
            if !splice::has(&text, key(dotted).parts()) {
                let is_empty_table = text.contains("{}");
                prop_assert!(is_empty_table || differ_at_one_place(&text, &after), "\n{}\n-> {}", text, after);
            }
        }
    }

    #[test]
    fn random_unset_removes_one_value_only(text in any_text()) {
        for dotted in KEYS {
            let Some(after) = unset(&text, dotted) else { continue };
            prop_assert!(all_values(&after).is_some(), "{}: no TOML any more:\n{}\n-> {}", dotted, text, after);
            prop_assert_eq!(all_values(&after).unwrap(), values_without(&text, dotted), "{}\n{}\n-> {}", dotted, text, after);
            prop_assert_eq!(comments(&after), comments(&text), "{}\n{}\n-> {}", dotted, text, after);
            prop_assert_eq!(unset(&after, dotted), None, "{}\n{}\n-> {}", dotted, text, after);
        }
    }

    #[test]
    fn random_text_is_read_without_panic(
        text in any_text(),
        noise in any::<String>(),
        at in any::<prop::sample::Index>(),
    ) {
        let places: Vec<usize> = text.char_indices().map(|(place, _)| place).chain([text.len()]).collect();
        let place = places[at.index(places.len())];
        let text = format!("{}{noise}{}", &text[..place], &text[place..]);
        let (config, problems) = Config::parse(&text, TABLE);
        for problem in &problems {
            prop_assert!(problem.line >= 1 && problem.column >= 1);
            prop_assert!(!problem.to_string().is_empty());
        }
        // A text that is not TOML has a problem, and its valid part can be written and read back.
        prop_assert!(DeTable::parse(&text).is_ok() || !problems.is_empty());
        prop_assert_eq!(Config::parse(&config.effective_toml(TABLE), TABLE).1.len(), 0);
        for dotted in KEYS {
            set(&text, dotted, "1");
            unset(&text, dotted);
        }
    }
}
