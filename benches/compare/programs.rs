//! The programs that are compared: fusion as it is shipped, `curl`, and the ones in `floor/`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use crate::release;
use crate::server::{Answer, Server};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// Paths and a stub server; dropping it stops the services that fusion started.
pub(crate) struct Programs {
    fusion: PathBuf,
    directory: tempfile::TempDir,
    server: Server,
    curl_version: Option<String>,
}

impl Programs {
    pub(crate) fn build() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        for program in ["empty", "requests", "reader", "opencode"] {
            build_floor(program, directory.path())?;
        }
        let (server, curl_version) = (Server::start()?, curl_version());
        let programs = Self { fusion: release::build()?, directory, server, curl_version };
        let port = programs.server.address.port();
        programs.configure(&format!("[ollama_server]\nport = {port}\n[ollama_run]\nmodel = \"one\"\n"))?;
        Ok(programs)
    }

    pub(crate) fn configure(&self, text: &str) -> Result<()> {
        Ok(std::fs::write(self.path("config.toml"), text)?)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn has_curl(&self) -> bool {
        self.curl_version.is_some()
    }

    /// One line for the reader of the table: what was measured, on what machine.
    pub(crate) fn conditions(&self) -> Result<String> {
        let cores = std::thread::available_parallelism()?;
        let (system, processor) = (std::env::consts::OS, std::env::consts::ARCH);
        let (version, curl) = (env!("CARGO_PKG_VERSION"), self.curl_version.as_deref().unwrap_or("no curl"));
        Ok(format!("fusion {version}, {curl}, {system} on {processor} with {cores} cores"))
    }

    /// The size of fusion's program in bytes.
    pub(crate) fn size(&self) -> Result<u64> {
        Ok(self.fusion.metadata()?.len())
    }

    pub(crate) fn fusion<A: AsRef<OsStr>>(&self, arguments: impl IntoIterator<Item = A>) -> Command {
        let mut command = Command::new(&self.fusion);
        command.args(arguments).env("FUSION_CONFIG_DIR", self.directory.path());
        command
    }

    /// A program of `floor/`.
    pub(crate) fn floor<A: AsRef<OsStr>>(
        &self,
        program: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(self.path(program));
        command.args(arguments);
        command
    }

    /// `fusion run`, printing the answer as it arrives.
    pub(crate) fn prompt(&self, answer: Answer) -> Command {
        self.fusion(["ollama", "run", "-m", &answer.model(), "--stream", "Hi"])
    }

    /// The same request by `curl`, which copies the response.
    pub(crate) fn curl(&self, answer: Answer) -> Command {
        let url = format!("http://{}/v1/chat/completions", self.server.address);
        let mut command = Command::new("curl");
        command.args(["-q", "-sN", "-H", "Content-Type: application/json", "-d", &body(answer), &url]);
        command
    }

    /// The same request by a program that copies the response from a bare socket.
    pub(crate) fn reader(&self, answer: Answer) -> Command {
        self.floor("reader", [self.server.address.to_string(), body(answer)])
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        // After a failure, too: the stub services run until they are stopped.
        let _ = self.fusion(["down"]).stdout(Stdio::null()).stderr(Stdio::null()).status();
    }
}

/// The body that `fusion run` sends.
fn body(answer: Answer) -> String {
    serde_json::json!({
        "model": answer.model(),
        "messages": [
            { "role": "system", "content": "You are a helpful assistant." },
            { "role": "user", "content": "Hi" },
        ],
        "temperature": 0.8,
        "stream": true,
        "stream_options": { "include_usage": true },
    })
    .to_string()
}

/// Such as `curl 8.5.0`.
fn curl_version() -> Option<String> {
    let output = Command::new("curl").arg("--version").output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Some(text.split_whitespace().take(2).collect::<Vec<_>>().join(" "))
}

fn build_floor(program: &str, directory: &Path) -> Result<()> {
    let source = Path::new(ROOT).join(format!("benches/compare/floor/{program}.rs"));
    let status = Command::new("rustc")
        .args(["--edition=2024", "-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols", "-o"])
        .args([directory.join(program), source])
        .status()
        .context("cannot run rustc")?;
    ensure!(status.success(), "floor/{program}.rs does not compile");
    Ok(())
}
