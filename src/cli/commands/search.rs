//! `fusion <runtime> search` and `fusion search`.

use crate::app::App;
use crate::app::search::{Fits, FoundModel, SearchRequest};
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::{ago, bytes, count, grouped};
use crate::core::config::parse_size;
use crate::core::models::hub::search::SearchOrder;
use crate::core::services::ManagedService;

/// The examples of the help; `SERVICE` is replaced by the name of the service.
pub const EXAMPLES: [&str; 3] = [
    "fusion SERVICE search qwen3",
    "fusion SERVICE search --fits --max-size 8GB coder",
    "fusion SERVICE search --sort new --json gemma | jq -r '.[].pull'",
];

/// Search the hub for models
///
/// Shows parameters, quantization, download size, whether the model fits into the memory of this machine, downloads and
/// age. The last line is the command that downloads the first model. Results are kept for a day. Needs the hub's own
/// tool `hf`.
#[derive(Debug, clap::Args)]
pub struct SearchArgs {
    /// Words that the name of the model has
    #[arg(required = true, value_name = "WORDS", value_parser = word)]
    words: Vec<String>,
    /// Only models that fit into the memory of this machine
    #[arg(long)]
    fits: bool,
    /// Only models of at most this download size, such as 8GB
    #[arg(long, value_name = "SIZE", value_parser = size)]
    max_size: Option<u64>,
    /// Context length for the memory, in tokens, such as 8k [default: 4k]
    #[arg(long, value_name = "TOKENS", value_parser = tokens)]
    context: Option<u64>,
    /// Order of the list
    #[arg(long, value_name = "ORDER", default_value = "downloads", value_parser = ["downloads", "new", "trending"])]
    sort: String,
    /// Maximum number of models
    #[arg(short = 'n', value_name = "NUMBER", default_value = "10", value_parser = clap::value_parser!(u8).range(1..=100))]
    rows: u8,
    /// Print an array of objects
    #[arg(long)]
    json: bool,
}

fn word(text: &str) -> Result<String, String> {
    let is_usable = !text.trim().is_empty() && !text.contains(char::is_control);
    is_usable.then(|| text.to_owned()).ok_or_else(|| "expected a word".to_owned())
}

fn size(text: &str) -> Result<u64, String> {
    parse_size(text).filter(|size| *size > 0).ok_or_else(|| "expected a size, such as 8GB".to_owned())
}

/// Parses `8192` or `8k`, which is 8 * 1,024.
fn tokens(text: &str) -> Result<u64, String> {
    let (number, unit) = match text.strip_suffix(['k', 'K']) {
        Some(number) => (number, 1024),
        None => (text, 1),
    };
    let number = number.parse::<u32>().ok().filter(|number| *number > 0);
    number
        .map(|number| u64::from(number) * unit)
        .ok_or_else(|| "expected a number of tokens, such as 8192 or 8k".to_owned())
}

/// Runs the command for a service; without one for the service that [`App::service_for_search`] picks.
pub fn run(
    context: &Context,
    app: &App,
    service: Option<&ManagedService>,
    args: &SearchArgs,
) -> Result<Exit, Failure> {
    let service = service.or_else(|| app.service_for_search(&context.cancel));
    let Some(service) = service else {
        return Err(Failure::new(Exit::Usage, "no service takes models from the hub"));
    };
    let request = SearchRequest {
        words: args.words.join(" "),
        order: match args.sort.as_str() {
            "new" => SearchOrder::New,
            "trending" => SearchOrder::Trending,
            _ => SearchOrder::Downloads,
        },
        rows: usize::from(args.rows),
        only_fitting: args.fits,
        max_size: args.max_size,
        context: args.context,
    };
    let found = {
        let _cancelled = context.cancel_on_signal();
        app.search(service, &request, &context.cancel)?
    };
    if args.json {
        context.ui.json(&found)?;
        return Ok(Exit::Done);
    }
    match found.first() {
        None => context.ui.note(&format!("the hub has no such model for {}", service.name)),
        Some(first) => {
            context.ui.result(&table(&found).text(context.ui.screen_width()))?;
            context.ui.result(&format!("{}\n", first.pull))?;
        }
    }
    Ok(Exit::Done)
}

fn table(found: &[FoundModel]) -> TextTable {
    let mut table = TextTable::new(&["NAME", "PARAMS", "QUANT", "SIZE", "FITS", "DOWNLOADS", "UPDATED"]);
    for model in found {
        let fits = match model.fits {
            Some(Fits::Yes) => "yes",
            Some(Fits::Tight) => "tight",
            Some(Fits::No) => "no",
            None => "?",
        };
        table.row([
            model.name.clone(),
            model.parameters.map_or_else(unknown, count),
            model.quantization.clone().unwrap_or_else(unknown),
            model.size_bytes.map_or_else(unknown, bytes),
            fits.to_owned(),
            model.downloads.map_or_else(unknown, grouped),
            model.updated.map_or_else(unknown, |moment| ago(moment.age())),
        ]);
    }
    table
}
