//! How a runtime's program is installed, as data; [`crate::core::install`] installs it.

use crate::core::machine::Mac;

/// How fusion installs a runtime's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallMethod {
    /// A package of the Python package index, in fusion's own environment.
    Python(PythonPackage),
    /// A Homebrew formula. Without Homebrew, fusion only names the makers' own way.
    Homebrew {
        formula: &'static str,
        /// The command or the page of its makers.
        manual: &'static str,
    },
}

/// A package of the Python package index, and its requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PythonPackage {
    /// Its name in the index.
    pub name: &'static str,
    /// The extra for this platform.
    pub extra: Option<&'static str>,
    /// The supported versions: at least the first, below the second.
    pub versions: (&'static str, &'static str),
    /// The oldest supported Python: major and minor version.
    pub python: (u32, u32),
    /// The oldest macOS on which it runs, by the first number of its version. Of Macs only those with Apple silicon do.
    pub macos: u32,
    /// The disk space that an installation may need while it is made, in bytes.
    pub disk_bytes: u64,
}

impl PythonPackage {
    /// Returns the requirement for the index (PEP 508).
    pub fn requirement(&self) -> String {
        let extra = self.extra.map(|extra| format!("[{extra}]")).unwrap_or_default();
        let (first, below) = self.versions;
        format!("{}{extra}>={first},<{below}", self.name)
    }

    /// Returns what the package needs and this Mac is not, and what it is instead.
    pub fn refuses(&self, mac: &Mac) -> Option<(String, String)> {
        let is_new = numbers(&mac.version).first().is_some_and(|major| *major >= self.macos);
        let processor = if mac.has_apple_silicon { "Apple silicon" } else { "an Intel processor" };
        (!is_new || !mac.has_apple_silicon).then(|| {
            let needed = format!("macOS {} or newer on Apple silicon", self.macos);
            (needed, format!("macOS {} on {processor}", mac.version))
        })
    }

    /// Returns whether a version is supported.
    pub fn knows(&self, version: &str) -> bool {
        let (first, below) = self.versions;
        (numbers(first)..numbers(below)).contains(&numbers(version))
    }
}

/// Returns the numbers of a version, up to its first part that is not a number.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_without_wheels_is_refused() {
        let package = PythonPackage {
            name: "mlx-lm",
            extra: None,
            versions: ("1", "2"),
            python: (3, 11),
            macos: 14,
            disk_bytes: 1,
        };
        for (has_apple_silicon, version, found) in [
            (true, "14.0", None),
            (true, "26.1", None),
            (true, "13.7.8", Some("macOS 13.7.8 on Apple silicon")),
            (false, "15.4", Some("macOS 15.4 on an Intel processor")),
        ] {
            let refused = package.refuses(&Mac { has_apple_silicon, version: version.to_owned() });
            assert_eq!(refused.as_ref().map(|(_, found)| found.as_str()), found);
            assert!(refused.is_none_or(|(needed, _)| needed == "macOS 14 or newer on Apple silicon"));
        }
    }

    #[test]
    fn requirement_covers_supported_versions_only() {
        let package = PythonPackage {
            name: "mlx-lm",
            extra: None,
            versions: ("0.32.2", "0.33"),
            python: (3, 11),
            macos: 14,
            disk_bytes: 1,
        };
        assert_eq!(package.requirement(), "mlx-lm>=0.32.2,<0.33");
        assert_eq!(
            PythonPackage { extra: Some("cpu"), ..package }.requirement(),
            "mlx-lm[cpu]>=0.32.2,<0.33"
        );
        for (version, known) in [
            ("0.32.1", false),
            ("0.32.2", true),
            ("0.32.10", true),
            ("0.33", false),
            ("0.33.0", false),
            ("1.0", false),
            ("", false),
        ] {
            assert_eq!(package.knows(version), known, "{version}");
        }
    }
}
