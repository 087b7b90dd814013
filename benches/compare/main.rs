//! What fusion costs, as ratios to `curl` and to programs that do nothing else: `cargo bench`.
//!
//! The compared programs run in turn. The ratio of their times is the median over the rounds; that of anything else is
//! the ratio of the two figures. Nothing here asserts a time: the aims are printed beside the figures.
//! `cargo bench -- --quick` makes few rounds.

#![allow(clippy::print_stdout)] // The figures are the result.

mod crowd;
mod measure;
mod server;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crowd::Crowd;
use measure::{Cost, arrivals, cost, in_turn, median, memory, milliseconds, quantile, ratio};
use server::{Answer, Server, TOKEN};

fn main() {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().expect("an argument");
    let Some(role) = std::env::args().nth(1).filter(|role| role.starts_with("--")) else {
        return compare(false);
    };
    next();
    match role.as_str() {
        "--memory" => measure::print_memory(&next(), arguments),
        "--serve" => {
            let (address, delay, stamp) = (next(), next(), next());
            let delay = Duration::from_millis(delay.parse().expect("milliseconds"));
            server::play_runtime(&address, delay, Path::new(&stamp));
        }
        "--threads" => crowd::play_threads(next().parse().expect("a number")),
        _ => compare(std::env::args().any(|argument| argument == "--quick")),
    }
}

/// Everything, in one run.
fn compare(quick: bool) {
    let rounds = |full: usize| if quick { full.div_ceil(20) } else { full };
    let bench = Bench::new();
    println!("\n{:<44} {:>12} {:>12} {:>8}  aim", "", "fusion", "other", "ratio");
    bench.start_up(rounds(200));
    bench.one_token(rounds(200));
    bench.flood(rounds(20), 100_000);
    bench.spacing(if quick { 50 } else { 200 }, rounds(20));
    // The limits of a machine that is lent for a quick look are lower there.
    let crowds = !(quick && cfg!(target_os = "macos"));
    bench.managed(rounds(200), rounds(10), crowds);
    if !crowds {
        println!("\nnot measured: ps beside 1,000 processes, and beside 3,000 threads");
    }
    if !bench.curl {
        println!("\ncurl is not installed, so nothing was compared with it");
    }
}

/// Where fusion runs, and what it is compared with.
struct Bench {
    program: PathBuf,
    directory: tempfile::TempDir,
    server: Server,
    curl: bool,
}

impl Bench {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        for program in ["empty", "requests", "reader"] {
            build(program, directory.path());
        }
        let curl = Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_ok();
        let bench = Self { program: build_fusion(), directory, server: Server::start(), curl };
        let address = bench.server.address;
        bench.configure(&format!(
            "[ollama_server]\nport = {}\n[ollama_run]\nmodel = \"one\"\n",
            address.port()
        ));
        bench
    }

    fn configure(&self, text: &str) {
        std::fs::write(self.directory.path().join("config.toml"), text).expect("a writable directory");
    }

    fn floor(&self, program: &str) -> Command {
        Command::new(self.directory.path().join(program))
    }

    fn fusion(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(arguments).env("FUSION_CONFIG_DIR", self.directory.path());
        command
    }

    fn prompt(&self, answer: Answer) -> Command {
        let stream = if matches!(answer, Answer::One) { "--no-stream" } else { "--stream" };
        self.fusion(&["ollama", "run", "-m", &answer.model(), stream, "Hi"])
    }

    fn body(answer: Answer) -> String {
        let stream = !matches!(answer, Answer::One);
        let messages =
            r#"[{"role":"system","content":"You are a helpful assistant."},{"role":"user","content":"Hi"}]"#;
        let model = answer.model();
        format!(r#"{{"model":"{model}","messages":{messages},"temperature":0.8,"stream":{stream}}}"#)
    }

    fn curl(&self, answer: Answer) -> Command {
        let mut command = Command::new("curl");
        let url = format!("http://{}/v1/chat/completions", self.server.address);
        command.args(["-q", "-sN", "-H", "Content-Type: application/json", "-d", &Self::body(answer), &url]);
        command
    }

    fn reader(&self, answer: Answer) -> Command {
        let mut command = self.floor("reader");
        command.args([self.server.address.to_string(), Self::body(answer)]);
        command
    }

    /// From the start of the program to its end.
    fn start_up(&self, rounds: usize) {
        let mut commands = [self.fusion(&["--version"]), self.floor("empty")];
        let costs = in_turn(rounds, &mut commands);
        report_time("start, against an empty program", &costs[0], &costs[1], "at most 1.3");
        report_memory("memory", &commands[0], &commands[1], "under 5 MB");
    }

    fn one_token(&self, rounds: usize) {
        let mut commands = vec![self.prompt(Answer::One), self.reader(Answer::One)];
        if self.curl {
            commands.push(self.curl(Answer::One));
        }
        let costs = in_turn(rounds, &mut commands);
        report_time("one token, against a bare socket", &costs[0], &costs[1], "");
        if let Some(curl) = costs.get(2) {
            report_time("one token, against curl", &costs[0], curl, "at most 0.3");
        }
        report_memory("memory", &commands[0], commands.last().expect("not empty"), "under 5 MB");
    }

    fn flood(&self, rounds: usize, tokens: usize) {
        let answer = Answer::Flood(tokens);
        let mut commands = vec![self.prompt(answer), self.reader(answer)];
        if self.curl {
            commands.push(self.curl(answer));
        }
        let costs = in_turn(rounds, &mut commands);
        #[allow(clippy::cast_precision_loss)] // No benchmark has 2^52 tokens.
        let each =
            |costs: &[Cost]| median(costs.iter().map(|cost| cost.cpu.as_secs_f64() * 1e6 / tokens as f64));
        report_time("100,000 tokens, against a bare socket", &costs[0], &costs[1], "");
        if let Some(curl) = costs.get(2) {
            report_time("100,000 tokens, against curl -N", &costs[0], curl, "at most 1.0");
        }
        let other = costs.last().expect("not empty");
        report("CPU for each token (us)", each(&costs[0]), each(other), "at most 1.0 us");
        report_memory("memory", &commands[0], commands.last().expect("not empty"), "under 4 MB");
    }

    /// How much later than it was sent a token comes out of the program, through a pipe.
    /// In turn, and all rounds together: the machine's own delays come and go within seconds.
    fn spacing(&self, tokens: usize, rounds: usize) {
        let answer = Answer::Paced(tokens);
        let (mut fusion, mut other) = (Vec::new(), Vec::new());
        let name = if self.curl { "curl -N" } else { "a bare socket" };
        for _ in 0..rounds {
            // Each event holds the token's text once, and nothing else in it looks like it.
            fusion.extend(self.delays(&mut self.prompt(answer), TOKEN.as_bytes(), tokens));
            let mut command = if self.curl { self.curl(answer) } else { self.reader(answer) };
            other.extend(self.delays(&mut command, TOKEN.as_bytes(), tokens));
        }
        for (share, label, aim) in [(0.5, "median", ""), (0.99, "p99", "at most 1.3")] {
            let label = format!("delay at 5 ms spacing, {label}, {name} (us)");
            report(&label, quantile(fusion.clone(), share), quantile(other.clone(), share), aim);
        }
    }

    /// Microseconds from the sending of each token to its arrival.
    fn delays(&self, command: &mut Command, token: &[u8], tokens: usize) -> Vec<f64> {
        let pieces = arrivals(command);
        let sent: Vec<Instant> = self.server.sent.try_iter().collect();
        assert_eq!(sent.len(), tokens);
        let (mut text, mut delays) = (Vec::new(), Vec::new());
        let mut searched = 0;
        for (arrived, piece) in pieces {
            text.extend_from_slice(&piece);
            while let Some(found) = text[searched..].windows(token.len()).position(|window| window == token) {
                searched += found + token.len();
                if let Some(sent) = sent.get(delays.len()) {
                    delays.push((arrived - *sent).as_secs_f64() * 1e6);
                }
            }
            // A token may be cut between two pieces.
            searched = searched.max(text.len().saturating_sub(token.len() - 1));
        }
        assert_eq!(delays.len(), tokens, "{command:?} lost tokens");
        delays
    }

    /// Runtimes that fusion starts, looks at and stops.
    fn managed(&self, looks: usize, starts: usize, crowds: bool) {
        let runtimes = ["ollama", "mlx"].map(|name| Managed::new(self, name));
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
        let text: String = runtimes.iter().map(|runtime| runtime.tables(model)).collect();
        self.configure(&text);

        let (mut up, mut down) = (Vec::new(), Vec::new());
        for _ in 0..starts {
            cost(&mut self.fusion(&["ollama", "up"]));
            up.push((now() - runtimes[0].ready()) * 1000.0);
            down.push(cost(&mut self.fusion(&["ollama", "down"])).wall.as_secs_f64() * 1000.0);
        }
        report_alone("up returns after the runtime is ready (ms)", median(up), "at most 50 ms");
        report_alone("down of a runtime that ends at once (ms)", median(down), "at most 50 ms");

        for runtime in ["ollama", "mlx"] {
            cost(&mut self.fusion(&[runtime, "up"]));
        }
        self.look(looks, &runtimes, "ps of two runtimes");
        if crowds {
            let crowd = Crowd::of_processes(1000);
            self.look(looks, &runtimes, "... beside 1,000 processes");
            drop(crowd);
            let crowd = Crowd::of_threads(3000);
            self.look(looks, &runtimes, "... beside a process of 3,000 threads");
            drop(crowd);
        }
        report_memory("memory", &self.fusion(&["ps"]), &self.requests(&runtimes), "under 5 MB");
    }

    fn look(&self, rounds: usize, runtimes: &[Managed; 2], what: &str) {
        let costs = in_turn(rounds, &mut [self.fusion(&["ps"]), self.requests(runtimes)]);
        report_time(what, &costs[0], &costs[1], "at most 3 ms more");
    }

    /// The two requests that any `ps` must make.
    fn requests(&self, runtimes: &[Managed; 2]) -> Command {
        let mut command = self.floor("requests");
        for (runtime, path) in runtimes.iter().zip(["api/version", "health"]) {
            command.arg(format!("{}/{path}", runtime.address));
        }
        command
    }
}

impl Drop for Bench {
    /// The stub runtimes would run for ever, also after a failure.
    fn drop(&mut self) {
        let _ = self.fusion(&["down"]).stdout(Stdio::null()).status();
    }
}

/// A stub runtime that fusion starts.
struct Managed {
    name: &'static str,
    address: std::net::SocketAddr,
    stamp: PathBuf,
}

impl Managed {
    fn new(bench: &Bench, name: &'static str) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        Self { name, address, stamp: bench.directory.path().join(format!("{name}-ready")) }
    }

    fn tables(&self, model: &str) -> String {
        let Self { name, address, stamp } = self;
        let program = std::env::current_exe().expect("own path");
        let (program, stamp, port) = (program.display(), stamp.display(), address.port());
        let command = format!("['{program}', '--serve', '{address}', '300', '{stamp}']");
        let server = format!("[{name}_server]\nport = {port}\ncommand = {command}\n");
        if *name == "mlx" {
            format!("{server}model = '{model}'\n[mlx_run]\nmodel = '{model}'\n")
        } else {
            server
        }
    }

    /// When it began to serve, in seconds since 1970.
    fn ready(&self) -> f64 {
        let stamp = std::fs::read_to_string(&self.stamp).expect("the runtime was started");
        stamp.parse::<f64>().expect("a time") / 1e9
    }
}

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64()
}

/// Builds fusion as it is shipped: what Cargo has built for this program has the tests' features and may not be
/// optimized.
fn build_fusion() -> PathBuf {
    let status =
        Command::new(env!("CARGO")).args(["build", "--quiet", "--release", "--bin", "fusion"]).status();
    assert!(status.is_ok_and(|status| status.success()), "fusion does not compile");
    let profile = Path::new(env!("CARGO_BIN_EXE_fusion")).parent().expect("target/PROFILE");
    profile.with_file_name("release").join("fusion")
}

/// Builds one of the programs that fusion is compared with.
fn build(program: &str, directory: &Path) {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("benches/compare/floor/{program}.rs"));
    let status = Command::new("rustc")
        .args(["--edition=2024", "-Copt-level=3", "-Cpanic=abort", "-Cstrip=symbols", "-o"])
        .args([directory.join(program), source])
        .status()
        .expect("rustc runs");
    assert!(status.success(), "{program} does not compile");
}

fn report(what: &str, fusion: f64, other: f64, aim: &str) {
    println!("{what:<44} {fusion:>12.2} {other:>12.2} {:>8.2}  {aim}", fusion / other);
}

fn report_alone(what: &str, fusion: f64, aim: &str) {
    println!("{what:<44} {fusion:>12.2} {:>12} {:>8}  {aim}", "", "");
}

fn report_time(what: &str, fusion: &[Cost], other: &[Cost], aim: &str) {
    let (fusion_ms, other_ms) = (milliseconds(fusion), milliseconds(other));
    let ratio = ratio(fusion, other, |cost| cost.wall);
    println!("{:<44} {fusion_ms:>12.2} {other_ms:>12.2} {ratio:>8.2}  {aim}", format!("{what} (ms)"));
}

fn report_memory(what: &str, fusion: &Command, other: &Command, aim: &str) {
    #[allow(clippy::cast_precision_loss)] // Three digits are shown.
    let megabytes = |command| memory(command) as f64 / 1e6;
    report(&format!("  {what} (MB)"), megabytes(fusion), megabytes(other), aim);
}
