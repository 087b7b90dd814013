//! `fusion <service> search` and `fusion search`.

use crate::app::App;
use crate::app::search::views::FoundView;
use crate::app::search::{MAX_SHOWN, SearchRequest};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::{ago, bytes, bytes_from, count, tokens_from};
use crate::core::models::hub::search::HubOrder;
use crate::core::services::ManagedService;

/// Search the hub for models to download
///
/// Shows parameters, quantization, size, and whether a model fits into the memory of this machine: yes, tight (only
/// when other programs free memory), no, or ? if its size is unknown. The last line is the command that downloads the
/// first one that fits. Of a repository with several quantizations, the usual one that passes the filters is shown.
///
/// Without a service, searches for `default_service`, else for the first service that is installed. Needs the program
/// hf. Answers of the hub are used for a day.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// Words of the name
    #[arg(required = true)]
    words: Vec<String>,
    /// Show only models that fit into the memory (yes or tight)
    #[arg(long)]
    fits: bool,
    /// Show only models of at most this size, such as 8GB
    #[arg(long, value_name = "SIZE", value_parser = bytes_from)]
    max_size: Option<u64>,
    /// Context length in tokens that must fit, such as 8k [default: 4k]
    #[arg(long, value_name = "N", value_parser = tokens_from)]
    context: Option<u64>,
    /// Order of the models
    #[arg(long, value_name = "ORDER", value_parser = ["downloads", "new", "trending"], default_value = "downloads")]
    sort: String,
    /// Maximum number of models, up to 100
    #[arg(short = 'n', value_name = "N", default_value = "10", value_parser = clap::value_parser!(u64).range(1..=MAX_SHOWN as u64))]
    count: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The examples of the help of one service.
pub const EXAMPLES: [&str; 3] = [
    "fusion SERVICE search qwen3",
    "fusion SERVICE search --fits --context 32k coder",
    "fusion SERVICE search --max-size 8GB --sort trending --json instruct | jq -r '.[].name'",
];

impl SearchArgs {
    fn order(&self) -> HubOrder {
        match self.sort.as_str() {
            "new" => HubOrder::New,
            "trending" => HubOrder::Trending,
            _ => HubOrder::Downloads,
        }
    }
}

/// Runs the command; without `service`, for the one that is most likely meant.
pub fn run(
    context: &Context,
    app: &App,
    service: Option<&ManagedService>,
    args: &SearchArgs,
) -> Result<Exit, Failure> {
    let words = args.words.join(" ");
    if words.trim().is_empty() {
        return Err(Failure::new(Exit::Usage, "the words to search for are empty"));
    }
    let Some(service) = service.or_else(|| app.searched_service()) else {
        return Err(Failure::new(Exit::Usage, "no service has models on the hub"));
    };
    let request = SearchRequest {
        words: words.trim(),
        order: args.order(),
        count: usize::try_from(args.count).unwrap_or(MAX_SHOWN),
        fits: args.fits,
        max_size: args.max_size,
        context: args.context,
    };
    context.ui.status(&format!("searching the hub for {}", service.name));
    let found = {
        let _cancelled = context.cancel_on_signal();
        app.search(service, &request, &context.cancel)?
    };
    let trouble = found.trouble.map(Failure::from);
    let is_of_hub = found.rows.iter().any(|row| row.pull.is_some());
    if args.json {
        context.ui.json(&found.rows)?;
    } else if !found.rows.is_empty() {
        if !is_of_hub {
            context.ui.note("on this machine:");
        }
        let table = table(&found.rows).text(context.ui.screen_width());
        let command = best(&found.rows).map(|command| format!("{command}\n")).unwrap_or_default();
        context.ui.result(&(table + &command))?;
    } else if trouble.is_some() {
        context.ui.note("no model on this machine has such a name");
    } else {
        context.ui.note(&format!("no model for {} matches", service.template.display_name()));
    }
    trouble.map_or(Ok(Exit::Done), Err)
}

/// Returns the command for the first model that fits best.
fn best(rows: &[FoundView]) -> Option<&str> {
    let rank = |row: &&FoundView| match row.fits {
        Some("yes") => 0,
        Some("tight") => 1,
        None => 2,
        Some(_) => 3,
    };
    rows.iter().min_by_key(rank)?.pull.as_deref()
}

fn table(rows: &[FoundView]) -> TextTable {
    let mut table = TextTable::new(&["NAME", "PARAMS", "QUANT", "SIZE", "FITS", "DOWNLOADS", "UPDATED"]);
    for row in rows {
        table.row(&[
            row.name.clone(),
            row.parameters.map_or_else(unknown, count),
            row.quantization.clone().unwrap_or_else(unknown),
            row.size_bytes.map_or_else(unknown, bytes),
            row.fits.unwrap_or("?").to_owned(),
            row.downloads.map_or_else(unknown, count),
            row.modified.map_or_else(unknown, |moment| ago(moment.age())),
        ]);
    }
    table
}
