//! `fusion templates`.

use crate::app::templates::TemplateView;
use crate::app::{App, SelectionError};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::core::nearest::nearest;

/// List the templates from which services are made
///
/// Every runtime is a built-in template; others are tables `[templates.NAME]` of the configuration. `fusion create`
/// makes a service from one.
#[derive(Debug, clap::Args)]
pub struct TemplatesArgs {
    /// Only this template
    name: Option<String>,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, args: &TemplatesArgs) -> Result<Exit, Failure> {
    let mut templates = app.templates();
    if let Some(name) = &args.name {
        let names: Vec<String> = templates.iter().map(|template| template.name.clone()).collect();
        templates.retain(|template| template.name == *name);
        if templates.is_empty() {
            let nearest = nearest(name, &mut names.iter().map(String::as_str)).map(str::to_owned);
            return Err(SelectionError::NoTemplate { name: name.clone(), nearest }.into());
        }
    }
    if args.json {
        context.ui.json(&templates)?;
    } else {
        context.ui.result(&table(&templates).text(context.ui.screen_width()))?;
    }
    Ok(Exit::Done)
}

fn table(templates: &[TemplateView]) -> TextTable {
    let mut table = TextTable::new(&["TEMPLATE", "RUNTIME", "PORT", "SERVICES", "DESCRIPTION"]);
    for template in templates {
        let services: Vec<&str> = template.instances.iter().map(|name| &**name).collect();
        let port = match (template.default_port, template.port_range) {
            (Some(port), _) => port.to_string(),
            (None, Some([first, last])) => format!("{first}-{last}"),
            (None, None) => unknown(),
        };
        table.row(&[
            template.name.clone(),
            template.runtime.map_or_else(unknown, str::to_owned),
            port,
            if services.is_empty() { unknown() } else { services.join(", ") },
            template.description.clone().unwrap_or_else(|| template.display_name.clone()),
        ]);
    }
    table
}
