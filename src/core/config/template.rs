//! The configuration as text: the fresh file with its comments, and every key with the value that holds.

use std::fmt::Write as _;

use serde_json::Map;
use toml_edit::{InlineTable, Value};

use super::key::{KeyPath, dotted};
use super::parse::{run_table, server_table};
use super::schema::{self, Key, PROMPT, Written};
use super::values::to_json;
use super::{Alias, Config, Prompt};
use crate::core::runtimes::Table;

const HEAD: &str = "\
# The configuration of fusion. `fusion config edit` opens it, `fusion config check` checks it.
# A key with `#` before it is not set: it shows its default or an example.
";

const TAIL: &str = "
# Short names of models: one for every runtime, or one for each.
#[aliases]
#small = \"llama3.2:3b\"
";

/// The table that the fresh file shows as an example of a prompt.
const EXAMPLE_PROMPT: &str = "prompts.review";

/// One table with all its keys.
pub(super) struct Section {
    /// The parts of its name.
    pub(super) path: Vec<String>,
    pub(super) rows: Vec<Row>,
}

/// One key with its value.
pub(super) struct Row {
    pub(super) name: String,
    /// `None` when it is not set and has no default.
    pub(super) value: Option<Value>,
    comment: &'static str,
    written: Written,
}

/// Every table and key, with the values that hold.
pub(super) fn sections(config: &Config, table: Table) -> Vec<Section> {
    let runtimes = table.iter().flat_map(|runtime| {
        let owner = config.runtime(*runtime);
        [
            Section { path: vec![server_table(*runtime)], rows: rows(schema::server_keys(*runtime), owner) },
            Section { path: vec![run_table(*runtime)], rows: rows(schema::run_keys(*runtime), owner) },
        ]
    });
    let prompts = config.prompts.iter().map(|(name, prompt)| Section {
        path: vec!["prompts".to_owned(), name.clone()],
        rows: rows(PROMPT, prompt),
    });
    let aliases = (!config.aliases.is_empty()).then(|| aliases(config));
    runtimes.chain(prompts).chain(aliases).collect()
}

fn rows<T: 'static>(keys: impl IntoIterator<Item = &'static Key<T>>, owner: &T) -> Vec<Row> {
    let row = |key: &Key<T>| Row {
        name: key.name.to_owned(),
        value: key.kind.write(owner),
        comment: key.comment,
        written: key.written,
    };
    keys.into_iter().map(row).collect()
}

fn aliases(config: &Config) -> Section {
    let value = |alias: &Alias| match alias {
        Alias::Everywhere(model) => Value::from(model),
        Alias::ForRuntimes(models) => models.iter().collect::<InlineTable>().into(),
    };
    let row = |(name, alias): (&String, &Alias)| Row {
        name: name.clone(),
        value: Some(value(alias)),
        comment: "",
        written: Written::Active,
    };
    Section { path: vec!["aliases".to_owned()], rows: config.aliases.iter().map(row).collect() }
}

/// The file that is made on first use.
pub(super) fn fresh(table: Table) -> String {
    let mut text = HEAD.to_owned();
    for section in sections(&Config::default_for(table), table) {
        let _ = write!(text, "\n[{}]\n", dotted(&section.path));
        push_rows(&mut text, &section.rows);
    }
    let _ = write!(text, "\n# A prompt worth keeping.\n#[{EXAMPLE_PROMPT}]\n");
    push_rows(&mut text, &rows(PROMPT, &Prompt::default()));
    text + TAIL
}

fn push_rows(text: &mut String, rows: &[Row]) {
    for [comment, key] in rows.iter().map(lines) {
        let _ = writeln!(text, "{comment}\n{key}");
    }
}

/// The two lines of a key in the fresh file.
fn lines(row: &Row) -> [String; 2] {
    let value = row.value.as_ref().map(ToString::to_string).unwrap_or_default();
    let key = match row.written {
        Written::Active => format!("{} = {value}", row.name),
        Written::Default => format!("#{} = {value}", row.name),
        Written::Example(example) => format!("#{} = {example}", row.name),
    };
    [format!("# {}", row.comment), key]
}

/// The two lines that the fresh file has for a key.
#[derive(Debug, Clone)]
pub(super) struct Documented {
    /// `# What it is.`
    pub(super) comment: String,
    /// `#key = value`
    pub(super) unset: String,
}

/// How the fresh file documents a key; `None` when it does not.
pub(super) fn documented(table: Table, key: &[String]) -> Option<Documented> {
    let (path, name) = match key {
        [prompts, _, name] if prompts == "prompts" => (None, name),
        [section, name] => (Some(section), name),
        _ => return None,
    };
    let rows = match path {
        None => rows(PROMPT, &Prompt::default()),
        Some(path) => {
            let defaults = sections(&Config::default_for(table), table);
            defaults.into_iter().find(|section| section.path[0] == *path)?.rows
        }
    };
    let [comment, line] = lines(rows.iter().find(|row| row.name == *name)?);
    let unset = if line.starts_with('#') { line } else { format!("#{line}") };
    Some(Documented { comment, unset })
}

/// The value that holds for a key; `None` when it is not set and has no default.
pub(super) fn value_at(config: &Config, table: Table, key: &KeyPath) -> Option<Value> {
    let (name, rest) = key.parts().split_at_checked(key.table_length())?;
    let (first, members) = rest.split_first()?;
    let section = sections(config, table).into_iter().find(|section| section.path == name)?;
    let value = section.rows.into_iter().find(|row| row.name == *first)?.value?;
    members.iter().try_fold(value, |value, member| value.as_inline_table()?.get(member).cloned())
}

/// Every key with the value that holds, as TOML.
pub(super) fn effective_toml(config: &Config, table: Table) -> String {
    let tables = sections(config, table).into_iter().map(|section| {
        let mut text = format!("[{}]\n", dotted(&section.path));
        for row in section.rows {
            let name = dotted(&[row.name]);
            let _ = match row.value {
                Some(value) => writeln!(text, "{name} = {value}"),
                None => writeln!(text, "# {name} is not set"),
            };
        }
        text
    });
    tables.collect::<Vec<_>>().join("\n")
}

/// Every key with the value that holds, as JSON; null where a key is not set and has no default.
pub(super) fn effective_json(config: &Config, table: Table) -> serde_json::Value {
    let mut root = serde_json::json!({ "prompts": {}, "aliases": {} });
    for section in sections(config, table) {
        let json = |value: Option<Value>| value.and_then(|value| to_json(&value.into())).unwrap_or_default();
        let place = section.path.iter().fold(&mut root, |place, name| &mut place[name.as_str()]);
        let mut members = Map::new();
        members.extend(section.rows.into_iter().map(|row| (row.name, json(row.value))));
        *place = members.into();
    }
    root
}

#[cfg(test)]
mod tests {
    use super::super::parse::parse;
    use super::*;
    use crate::core::runtimes::TABLE;

    #[test]
    fn the_fresh_file_says_what_holds_without_it() {
        let (config, problems) = parse(&fresh(TABLE), TABLE);
        assert_eq!(problems, []);
        assert_eq!(effective_toml(&config, TABLE), effective_toml(&Config::default_for(TABLE), TABLE));
    }

    #[test]
    fn every_example_of_the_fresh_file_is_valid() {
        let uncommented: String = fresh(TABLE)
            .lines()
            .map(|line| line.strip_prefix('#').filter(|rest| !rest.starts_with(' ')).unwrap_or(line))
            .flat_map(|line| [line, "\n"])
            .collect();
        let (config, problems) = parse(&uncommented, TABLE);
        assert_eq!(problems, [], "{uncommented}");
        assert_eq!(config.prompts.len(), 1);
        assert_eq!(config.aliases.len(), 1);
        assert!(config.runtime(TABLE[0]).server.command.is_some());
    }

    #[test]
    fn what_holds_can_be_read_back() {
        let text = "[ollama_server]\nenv = { A = 'b' }\nstop_timeout = 0.5\n[mlx_run]\nextra_body = { x = [1, { y = 2.5 }] }\n\
                    stop = 'x'\n[prompts.'a b']\nsystem = \"\"\n[aliases]\n'x:y' = { ollama = 'z' }\nw = 'v'\n";
        let (config, problems) = parse(text, TABLE);
        assert_eq!(problems, []);
        let written = effective_toml(&config, TABLE);
        let (again, problems) = parse(&written, TABLE);
        assert_eq!(problems, [], "{written}");
        assert_eq!(effective_toml(&again, TABLE), written);
        assert_eq!(again.aliases, config.aliases);
        assert_eq!(again.prompts, config.prompts);
        assert_eq!(again.services, config.services);
    }
}
