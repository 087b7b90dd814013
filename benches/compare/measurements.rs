//! What is measured. Each function adds its rows to the report.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};

use crate::crowd::Crowd;
use crate::measure::{Cost, arrivals, cost, in_turn, median, memory, quantile};
use crate::programs::Programs;
use crate::report::Report;
use crate::row::Unit;
use crate::server::{Answer, TOKEN};

const CURL: &str = "curl";
const SOCKET: &str = "a bare socket";

/// From the start of the program to its end.
pub(crate) fn start_up(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    let no_arguments: [&str; 0] = [];
    let mut commands = [programs.fusion(["--version"]), programs.floor("empty", no_arguments)];
    let costs = in_turn(rounds, &mut commands)?;
    report.times("start and end", &costs[0], "an empty program", &costs[1], "at most 1.3");
    #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
    report.alone("size of the program", Unit::Megabytes, programs.size()? as f64 / 1e6, "at most 3.4 MB");
    Ok(())
}

/// A prompt, from the start of the program to its end.
pub(crate) fn one_token(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    let answer = Answer::Flood(1);
    let (mut commands, names) = clients(programs, answer);
    let costs = in_turn(rounds, &mut commands)?;
    for (name, other) in names.iter().zip(&costs[1..]) {
        let aim = if *name == CURL { "at most 0.3" } else { "" };
        report.times("a prompt, answered with one token", &costs[0], name, other, aim);
    }
    compare_memory(report, "memory of one prompt", &commands, &names, "under 5 MB")
}

/// An answer that comes as fast as it is taken.
pub(crate) fn many_tokens(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    const TOKENS: u32 = 100_000;
    let (mut commands, names) = clients(programs, Answer::Flood(TOKENS as usize));
    let costs = in_turn(rounds, &mut commands)?;
    let per_token =
        |costs: &[Cost]| median(costs.iter().map(|cost| cost.cpu.as_secs_f64() * 1e6 / f64::from(TOKENS)));
    for (name, other) in names.iter().zip(&costs[1..]) {
        let aim = if *name == CURL { "at most 1.0" } else { "" };
        report.times("100,000 tokens, streamed and parsed", &costs[0], name, other, aim);
    }
    // A bare socket has next to none.
    if let (Some(&CURL), Some(other)) = (names.last(), costs.last()) {
        let (fusion, other) = (per_token(&costs[0])?, per_token(other)?);
        let label = "processor time for each token";
        report.values(label, Unit::Microseconds, fusion, CURL, other, "at most 1 µs");
    }
    compare_memory(report, "memory of 100,000 tokens", &commands, &names, "under 4 MB")
}

/// `fusion run` and what it is compared with, and the names of the latter.
fn clients(programs: &Programs, answer: Answer) -> (Vec<Command>, Vec<&'static str>) {
    let mut commands = vec![programs.prompt(answer), programs.reader(answer)];
    let mut names = vec![SOCKET];
    if programs.has_curl() {
        commands.push(programs.curl(answer));
        names.push(CURL);
    }
    (commands, names)
}

fn compare_memory(
    report: &mut Report,
    label: &'static str,
    commands: &[Command],
    names: &[&'static str],
    aim: &'static str,
) -> Result<()> {
    let (name, other) = names.last().zip(commands.last()).context("nothing to compare with")?;
    report.values(label, Unit::Megabytes, memory(&commands[0])?, name, memory(other)?, aim);
    Ok(())
}

/// How much later than the server sent it a token comes out of the program, through a pipe.
pub(crate) fn delay(programs: &Programs, report: &mut Report, rounds: usize) -> Result<()> {
    const TOKENS: usize = 200;
    let answer = Answer::Paced(TOKENS);
    let (mut fusion, mut other) = (Vec::new(), Vec::new());
    let name = if programs.has_curl() { CURL } else { SOCKET };
    // In turn, and all rounds together: disturbances of the machine come and go within seconds.
    for _ in 0..rounds {
        fusion.extend(delays(programs, &mut programs.prompt(answer), TOKENS)?);
        let mut command = if programs.has_curl() { programs.curl(answer) } else { programs.reader(answer) };
        other.extend(delays(programs, &mut command, TOKENS)?);
    }
    for (share, label, aim) in [
        (0.5, "delay of a token that comes every 5 ms, median", ""),
        (0.99, "99th percentile of that delay", "at most 1.3"),
    ] {
        let (fusion, other) = (quantile(fusion.clone(), share)?, quantile(other.clone(), share)?);
        report.values(label, Unit::Microseconds, fusion, name, other, aim);
    }
    Ok(())
}

/// Microseconds from the sending of each token to its arrival.
fn delays(programs: &Programs, command: &mut Command, tokens: usize) -> Result<Vec<f64>> {
    // Each event contains the token's text once, and nothing else in it looks like it.
    let token = TOKEN.as_bytes();
    let pieces = arrivals(command)?;
    let sent: Vec<Instant> = programs.server().sent.try_iter().collect();
    ensure!(sent.len() == tokens, "the server sent {} tokens of {tokens}", sent.len());
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
        // Two pieces may divide a token.
        searched = searched.max(text.len().saturating_sub(token.len() - 1));
    }
    ensure!(delays.len() == tokens, "{command:?} printed {} tokens of {tokens}", delays.len());
    Ok(delays)
}

/// Services that fusion starts, reports on and stops.
pub(crate) fn services(
    programs: &Programs,
    report: &mut Report,
    rounds: usize,
    starts: usize,
    crowds: bool,
) -> Result<()> {
    let services = [Service::new(programs, "ollama")?, Service::new(programs, "mlx")?];
    let tables: Result<String> = services.iter().map(Service::tables).collect();
    programs.configure(&tables?)?;

    up_and_down(programs, report, &services[0], starts)?;
    for service in &services {
        cost(&mut programs.fusion([service.name, "up"]))?;
    }
    ps(programs, report, &services, rounds, "ps with two services up")?;
    if crowds {
        let crowd = Crowd::of_processes(1000)?;
        ps(programs, report, &services, rounds, "ps beside 1,000 other processes")?;
        drop(crowd);
        let crowd = Crowd::of_threads(3000)?;
        ps(programs, report, &services, rounds, "ps beside a process of 3,000 threads")?;
        drop(crowd);
    }
    let commands = [programs.fusion(["ps"]), requests(programs, &services)];
    compare_memory(report, "memory of ps", &commands, &[REQUESTS], "under 5 MB")
}

/// Servers that fusion did not start, alone and beside a crowd.
pub(crate) fn external(programs: &Programs, report: &mut Report, rounds: usize, crowds: bool) -> Result<()> {
    // What `services` has started.
    cost(&mut programs.fusion(["down"]))?;
    let services = [Service::new(programs, "ollama")?, Service::new(programs, "mlx")?];
    let tables: Result<String> = services.iter().map(Service::tables).collect();
    programs.configure(&tables?)?;
    let commands: Result<Vec<Command>> = services.iter().map(Service::command).collect();
    let servers = Crowd::of_commands(commands?)?;
    for service in &services {
        while TcpStream::connect(service.address).is_err() {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    ps(programs, report, &services, rounds, "ps with two external servers")?;
    if crowds {
        let crowd = Crowd::of_processes(1000)?;
        ps(programs, report, &services, rounds, "the same beside 1,000 processes")?;
        drop(crowd);
        let crowd = Crowd::of_descriptors(8000)?;
        ps(programs, report, &services, rounds, "the same beside 8,000 descriptors")?;
        drop(crowd);
    }
    drop(servers);
    Ok(())
}

fn up_and_down(programs: &Programs, report: &mut Report, service: &Service, starts: usize) -> Result<()> {
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..starts {
        cost(&mut programs.fusion([service.name, "up"]))?;
        let returned = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        up.push((returned - service.ready()?) * 1e3);
        down.push(cost(&mut programs.fusion([service.name, "down"]))?.wall.as_secs_f64() * 1e3);
    }
    report.alone("up, after the service is ready", Unit::Milliseconds, median(up)?, "at most 50 ms");
    report.alone("down of a service that ends at once", Unit::Milliseconds, median(down)?, "at most 50 ms");
    Ok(())
}

const REQUESTS: &str = "the two requests alone";

fn ps(
    programs: &Programs,
    report: &mut Report,
    services: &[Service; 2],
    rounds: usize,
    label: &'static str,
) -> Result<()> {
    let costs = in_turn(rounds, &mut [programs.fusion(["ps"]), requests(programs, services)])?;
    report.times(label, &costs[0], REQUESTS, &costs[1], "at most 3 ms more");
    Ok(())
}

/// The two requests that any `ps` must make.
fn requests(programs: &Programs, services: &[Service; 2]) -> Command {
    let paths = services.iter().zip(["api/version", "health"]);
    programs.floor("requests", paths.map(|(service, path)| format!("{}/{path}", service.address)))
}

/// A stub service that fusion starts: this program in the role `--serve`.
struct Service {
    name: &'static str,
    address: SocketAddr,
    stamp: PathBuf,
}

impl Service {
    fn new(programs: &Programs, name: &'static str) -> Result<Self> {
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        Ok(Self { name, address, stamp: programs.path(&format!("{name}-ready")) })
    }

    /// Starts it without fusion.
    fn command(&self) -> Result<Command> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("--serve").arg(self.address.to_string()).arg("0").arg(&self.stamp);
        Ok(command)
    }

    fn tables(&self) -> Result<String> {
        let Self { name, address, stamp } = self;
        let program = std::env::current_exe()?;
        let (program, stamp, port) = (program.display(), stamp.display(), address.port());
        let command = format!("['{program}', '--serve', '{address}', '300', '{stamp}']");
        let server = format!("[{name}_server]\nport = {port}\ncommand = {command}\n");
        let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/models/tiny");
        Ok(match *name {
            "mlx" => format!("{server}model = '{model}'\n[mlx_run]\nmodel = '{model}'\n"),
            _ => server,
        })
    }

    /// When it began to serve, in seconds since 1970.
    fn ready(&self) -> Result<f64> {
        let stamp = std::fs::read_to_string(&self.stamp).context("the service did not start")?;
        Ok(stamp.parse::<f64>()? / 1e9)
    }
}
