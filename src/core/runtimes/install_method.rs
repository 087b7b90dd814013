//! How a runtime's program is installed, as data; [`crate::core::install`] does it.

/// How fusion installs a runtime's program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InstallMethod {
    /// From the Python package index, into an environment of fusion's own.
    Python(PythonPackage),
    /// With Homebrew where that is. Elsewhere its makers' own way is named, and never run.
    Homebrew {
        /// The formula's name.
        formula: &'static str,
        /// The command, or the page, by which its makers install it.
        elsewhere: &'static str,
    },
}

/// A package of the Python package index, with what it takes to install it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PythonPackage {
    /// Its name on the index.
    pub name: &'static str,
    /// The extra that this platform needs.
    pub extra: Option<&'static str>,
    /// The versions known to work: at least the first, below the second.
    pub versions: (&'static str, &'static str),
    /// The oldest Python it runs on: major and minor version.
    pub python: (u32, u32),
    /// The disk space that an installation may take while it is made, in bytes.
    pub disk_bytes: u64,
}

impl PythonPackage {
    /// What is asked of the index (PEP 508).
    pub fn requirement(&self) -> String {
        let extra = self.extra.map(|extra| format!("[{extra}]")).unwrap_or_default();
        let (first, below) = self.versions;
        format!("{}{extra}>={first},<{below}", self.name)
    }

    /// Whether a version is one of those that are known to work.
    pub fn knows(&self, version: &str) -> bool {
        let (first, below) = self.versions;
        (numbers(first)..numbers(below)).contains(&numbers(version))
    }
}

/// The numbers of a version up to its first part that is none.
fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map_while(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_asked_for_known_versions_only() {
        let package = PythonPackage {
            name: "mlx-lm",
            extra: None,
            versions: ("0.32.2", "0.33"),
            python: (3, 11),
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
