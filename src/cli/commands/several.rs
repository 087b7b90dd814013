//! What commands over several services share: the arguments that select them, and the report of what became of each.

use serde::Serialize;

use crate::app::Selection;
use crate::cli::context::Context;
use crate::cli::error::{Failure, FailureLines};
use crate::cli::exit::Exit;
use crate::cli::table::TextTable;
use crate::core::services::ManagedService;

/// What a command that needs running services says without them.
pub(super) const NOTHING_RUNS: &str = "nothing is running that fusion started";

#[derive(Debug, clap::Args)]
pub(super) struct SelectionArgs {
    /// Names of services
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Only services with this tag
    #[arg(long, value_name = "TAG")]
    tag: Option<String>,
    /// Only services that are made from this template
    #[arg(long, value_name = "TEMPLATE")]
    template: Option<String>,
}

impl SelectionArgs {
    pub(super) fn selection(&self) -> Selection {
        let Self { names, tag, template } = self;
        Selection { names: names.clone(), tag: tag.clone(), template: template.clone() }
    }
}

/// Returns the failure of a command whose arguments select nothing.
pub(super) fn nothing_selected(selection: &Selection) -> Failure {
    let what = |kind: &str, name: &Option<String>| name.as_ref().map(|name| format!("{kind} {name}"));
    let conditions = [what("the tag", &selection.tag), what("the template", &selection.template)];
    let conditions = conditions.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let message = if selection.names.is_empty() {
        format!("no service has {conditions}")
    } else {
        format!("{} does not have {conditions}", selection.names.join(", "))
    };
    Failure::new(Exit::Usage, message).hint("list the services with tags and templates: fusion ps --json")
}

/// Prints what became of services: failures on stderr, each with the name of its service, the rest on stdout. Returns
/// the exit code of the first failure in the order of the services; an interruption is a failure of the whole
/// command.
pub(super) fn report<T, V: Serialize>(
    context: &Context,
    results: &[(&ManagedService, Result<T, Failure>)],
    as_json: bool,
    mut table: TextTable,
    cells: impl Fn(&T) -> Vec<String>,
    view: impl Fn(&ManagedService, Result<&T, String>) -> V,
) -> Result<Exit, Failure> {
    let mut exit = Exit::Done;
    let mut views = Vec::new();
    for (service, result) in results {
        if let Err(failure) = result {
            exit = exit.or(failure.exit);
            context.ui.failure(&named(service, failure));
        }
        if as_json {
            views.push(view(service, result.as_ref().map_err(in_one_line)));
        }
        let mut row = vec![service.name.to_string()];
        match result {
            Ok(done) => row.extend(cells(done)),
            Err(failure) if failure.exit == Exit::Interrupted => row.push("interrupted".to_owned()),
            Err(_) => row.push("failed".to_owned()),
        }
        table.row(&row);
    }
    if as_json {
        context.ui.json(&views)?;
    } else {
        context.ui.result(&table.text(context.ui.screen_width()))?;
    }
    let is_interrupted = |(_, result): &(_, Result<T, Failure>)| matches!(result, Err(failure) if failure.exit == Exit::Interrupted);
    if results.iter().any(is_interrupted) { Err(Failure::new(Exit::Interrupted, "")) } else { Ok(exit) }
}

/// Returns the failure with the name of the service in its message.
pub(super) fn named(service: &ManagedService, failure: &Failure) -> Failure {
    let mut named = FailureLines::clone(failure);
    let mut words = failure.message.split(|character: char| !character.is_alphanumeric() && character != '-');
    if !failure.message.is_empty() && !words.any(|word| *word == *service.name) {
        named.message = format!("{}: {}", service.name, failure.message);
    }
    named.into()
}

fn in_one_line(failure: &Failure) -> String {
    if failure.exit == Exit::Interrupted {
        return "interrupted".to_owned();
    }
    failure.facts(": ")
}
