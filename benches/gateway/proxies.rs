//! The programs that are compared, as processes of their own.

use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use crate::release;

pub struct Proxy {
    program: PathBuf,
    pub port: u16,
    pub start_up: Duration,
    child: Child,
    directory: TempDir,
}

impl Proxy {
    /// Starts nginx as one process, with kept connections; `None` if it is not installed.
    pub fn nginx(backend: u16) -> Result<Option<Self>> {
        let places = ["/usr/sbin/nginx", "/usr/bin/nginx", "/opt/homebrew/bin/nginx", "/usr/local/bin/nginx"];
        let Some(program) = places.into_iter().find(|path| Path::new(path).is_file()) else {
            return Ok(None);
        };
        let (directory, port) = (TempDir::new()?, free_port()?);
        let root = directory.path().display();
        let text = format!(
            "daemon off; master_process off; pid {root}/pid; error_log {root}/error;\n\
             events {{ worker_connections 8192; }}\n\
             http {{ access_log off; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;\n\
             fastcgi_temp_path {root}/fastcgi; uwsgi_temp_path {root}/uwsgi; scgi_temp_path {root}/scgi;\n\
             upstream server {{ server 127.0.0.1:{backend}; keepalive 16; }}\n\
             server {{ listen 127.0.0.1:{port}; keepalive_requests 1000000; location / {{ proxy_pass http://server;\n\
             proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; }} }} }}\n"
        );
        let file = directory.path().join("nginx.conf");
        std::fs::write(&file, text)?;
        let mut command = Command::new(program);
        command.arg("-c").arg(&file).arg("-p").arg(directory.path());
        Self::start(program.into(), command, port, directory).map(Some)
    }

    /// Starts `fusion serve` in front of the server, which it takes for Ollama.
    pub fn fusion(backend: u16) -> Result<Self> {
        Self::before(backend, "")
    }

    /// Starts `fusion serve` with more settings of `[ollama_server]`.
    pub fn before(backend: u16, more: &str) -> Result<Self> {
        let (directory, port) = (TempDir::new()?, free_port()?);
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o700))?;
        let file = directory.path().join("config.toml");
        let text = format!("[ollama_server]\nport = {backend}\n{more}\n[gateway]\nport = {port}\n");
        std::fs::write(&file, text)?;
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600))?;
        let program = release::build()?;
        let mut command = Command::new(&program);
        command.arg("serve").env("FUSION_CONFIG_DIR", directory.path());
        Self::start(program, command, port, directory)
    }

    fn start(program: PathBuf, mut command: Command, port: u16, directory: TempDir) -> Result<Self> {
        let begin = Instant::now();
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut proxy = Self { program, port, start_up: Duration::ZERO, child, directory };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("{} does not listen", proxy.program.display());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        proxy.start_up = begin.elapsed();
        Ok(proxy)
    }

    /// Returns a command of fusion with the same configuration.
    pub fn command<const N: usize>(&self, arguments: [&str; N]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("FUSION_CONFIG_DIR", self.directory.path());
        command
    }

    /// Returns the CPU time that the process has used.
    pub fn cpu(&self) -> Result<Duration> {
        let mut sum = 0;
        for task in std::fs::read_dir(format!("/proc/{}/task", self.child.id()))? {
            let text = std::fs::read_to_string(task?.path().join("schedstat"))?;
            sum += text.split(' ').next().context("a number")?.parse::<u64>()?;
        }
        Ok(Duration::from_nanos(sum))
    }

    /// Returns its resident memory in bytes.
    pub fn memory(&self) -> Result<u64> {
        let text = std::fs::read_to_string(format!("/proc/{}/statm", self.child.id()))?;
        Ok(text.split(' ').nth(1).context("a number")?.parse::<u64>()? * 4096)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        // It may have ended by itself.
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

pub fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}
