//! A cold start: the first byte of an answer whose server must be started first, through the gateway and with `run`.

use std::io::Read as _;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use crate::backend::Backend;
use crate::client::{self, Client};
use crate::median;
use crate::proxies::{Proxy, free_port};

/// The first argument of the process that plays Ollama.
pub const ROLE: &str = "--ollama";

const ROUNDS: usize = 20;

/// Is the server at `OLLAMA_HOST` until it is stopped.
pub fn play_server() -> Result<()> {
    #[expect(clippy::disallowed_methods, reason = "it is started as Ollama is")]
    let address = std::env::var("OLLAMA_HOST").context("OLLAMA_HOST is not set")?;
    let _backend = Backend::at(address.trim_start_matches("http://"))?;
    loop {
        std::thread::park();
    }
}

/// Returns the medians in milliseconds: through the gateway, and with `run`.
pub fn measure() -> Result<(f64, f64)> {
    let port = free_port()?;
    let this = std::env::current_exe()?;
    let this = this.to_str().context("the path of the benchmark is not text")?;
    // What a stopped Ollama has is in its store.
    let directory = tempfile::TempDir::new()?;
    let manifest = directory.path().join("manifests/registry.ollama.ai/library/tiny/latest");
    std::fs::create_dir_all(manifest.parent().context("a directory")?)?;
    std::fs::write(manifest, "{}")?;
    let store = directory.path().to_str().context("the path of the store is not text")?;
    let proxy = Proxy::before(
        port,
        &format!(
            "command = [{this:?}, {ROLE:?}]\nenv = {{ OLLAMA_MODELS = {store:?} }}\n[ollama_run]\nmodel = \"tiny\"\n"
        ),
    )?;
    let (mut through_gateway, mut run) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        through_gateway.push(first_byte_of_gateway(&proxy)?);
        stop(&proxy)?;
        run.push(first_byte_of_run(&proxy)?);
        stop(&proxy)?;
    }
    Ok((median(through_gateway) / 1000.0, median(run) / 1000.0))
}

fn first_byte_of_gateway(proxy: &Proxy) -> Result<Duration> {
    let mut client = Client::connect(proxy.port)?;
    let begin = Instant::now();
    client.send(&client::stream(1))?;
    let answer = client.first_event()?;
    let elapsed = begin.elapsed();
    ensure!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    Ok(elapsed)
}

fn first_byte_of_run(proxy: &Proxy) -> Result<Duration> {
    let begin = Instant::now();
    let mut command = proxy.command(["ollama", "run", "Say one word."]);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let read = child.stdout.as_mut().context("its output")?.read(&mut [0]);
    let elapsed = begin.elapsed();
    ensure!(child.wait()?.success() && read? == 1, "run failed");
    Ok(elapsed)
}

fn stop(proxy: &Proxy) -> Result<()> {
    let mut command = proxy.command(["ollama", "down"]);
    ensure!(command.stdout(Stdio::null()).stderr(Stdio::null()).status()?.success(), "down failed");
    // The gateway looks at a process again after a quarter of a second.
    std::thread::sleep(Duration::from_millis(300));
    Ok(())
}
