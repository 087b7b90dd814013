//! `fusion serve`: the gateway in the foreground.

use crate::app::Serve;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::core::cancel::Cancelled;

/// Serve one API in front of every service, in the foreground
///
/// Apps, editors and agents get one address that speaks the APIs of OpenAI and Anthropic. A request starts the
/// service that has its model; an idle service is stopped. `fusion gateway up` runs the same program in the
/// background.
#[derive(Debug, clap::Args)]
pub struct ServeArgs {}

/// Runs the command until a signal ends it.
pub fn run(context: &Context, serve: Serve, _: &ServeArgs) -> Result<Exit, Failure> {
    let app = context.app()?;
    let signal = serve(app, &mut |address| {
        let port = address.port;
        let text = format!(
            "the gateway listens on {} (in a browser: http://fusion.localhost:{port}/)\n",
            address.url()
        );
        // It serves even if nobody reads its output.
        let _ = context.ui.result(&text);
    })?;
    context.cancel.cancel(Cancelled::Signal(signal));
    Err(Failure::new(Exit::Interrupted, ""))
}
