//! Replaces the part of a page between a mark of its own and the next end mark.

use std::path::Path;

use anyhow::{Context as _, Result};

const END: &str = "<!-- to here -->\n";

/// Writes `part` into the page behind `begin`.
pub(crate) fn write(path: &Path, begin: &str, part: &str) -> Result<()> {
    let page = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    let page = replaced(&page, begin, part)
        .with_context(|| format!("{} has no marks for the table", path.display()))?;
    Ok(std::fs::write(path, page)?)
}

fn replaced(page: &str, begin: &str, part: &str) -> Option<String> {
    let (before, rest) = page.split_once(begin)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{begin}\n{part}\n{END}{after}"))
}
