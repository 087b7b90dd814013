//! The parts of a configuration that a start depends on, as hashes, so `ps` can name those that have changed.

use std::ffi::{OsStr, OsString};

use super::record::hash;
use crate::core::address::Address;
use crate::core::order;
use crate::core::process::ProcessSpec;
use crate::core::sorted_map::SortedMap;

/// A hash for each part, by the name of the part. Hashes, because the configuration may hold secrets.
pub(super) type Facets = SortedMap<String, String>;

/// The part that is there only where the configuration names a working directory.
pub(super) const WORKING_DIR: &str = "working_dir";

/// Returns the parts of a start. `names_directory` says whether the configuration names the working directory.
pub(super) fn of(spec: &ProcessSpec, address: &Address, names_directory: bool) -> Facets {
    let command = [spec.program.as_os_str()].into_iter().chain(spec.args.iter().map(OsString::as_os_str));
    let address = address.to_string();
    let mut facets = Facets::new();
    facets.insert("command".to_owned(), hash(command));
    facets.insert("address".to_owned(), hash([OsStr::new(&address)]));
    if names_directory {
        facets.insert(WORKING_DIR.to_owned(), hash([spec.directory.as_os_str()]));
    }
    // Of several values of a variable the last one counts.
    for (name, value) in &spec.env {
        facets.insert(format!("env.{}", name.to_string_lossy()), hash([value.as_os_str()]));
    }
    facets
}

/// Returns the names of the parts that differ, in order.
pub(super) fn differences(recorded: &Facets, now: &Facets) -> Vec<String> {
    let names = order::unique(recorded.keys().chain(now.keys()));
    names.into_iter().filter(|name| recorded.get(*name) != now.get(*name)).cloned().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_changed_part_is_named() {
        let address = |port| Address { host: "127.0.0.1".to_owned(), port };
        let spec = ProcessSpec {
            program: "/bin/a".into(),
            args: vec!["x".into()],
            without: Vec::new(),
            home: None,
            env: vec![("A".into(), "0".into()), ("A".into(), "1".into()), ("B".into(), "1".into())],
            directory: "/here".into(),
            log: None,
            instance: String::new(),
        };
        let before = of(&spec, &address(1), true);
        assert_eq!(differences(&before, &of(&spec, &address(1), true)), [""; 0]);
        let after = ProcessSpec {
            args: vec!["x".into(), "y".into()],
            env: vec![("A".into(), "2".into()), ("C".into(), "1".into())],
            directory: "/there".into(),
            ..spec.clone()
        };
        assert_eq!(
            differences(&before, &of(&after, &address(2), true)),
            ["address", "command", "env.A", "env.B", "env.C", "working_dir"]
        );
        let same = ProcessSpec { env: spec.env[1..].to_vec(), log: Some("/log".into()), ..spec };
        assert_eq!(differences(&before, &of(&same, &address(1), true)), [""; 0]);
    }
}
