//! Measures the gateway beside nginx in front of the same server, in the same run: `cargo bench --bench gateway`.
//!
//! Both keep their connections to the server. No duration is asserted: the aims stand beside the figures, in the table
//! that a run writes into `docs/performance.md`.

#![allow(clippy::print_stdout, reason = "the figures are the result")]
#![allow(clippy::cast_precision_loss, reason = "no figure has more than 52 bits")]
#![allow(unreachable_pub, reason = "a benchmark has no public interface")]

mod backend;
mod client;
mod cold;
#[path = "../compare/marks.rs"]
mod marks;
mod proxies;
#[path = "../compare/release.rs"]
mod release;
mod report;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use backend::Backend;
use client::Client;
use proxies::Proxy;
use report::Report;

const REQUESTS: usize = 8000;
const ROUNDS: usize = 8;
const TOKENS: usize = 20_000;
const IDLE_STREAMS: [usize; 2] = [1000, 5000];
const GONE: usize = 100;
const LARGE_STREAMS: usize = 30;

fn main() -> Result<()> {
    if std::env::args().nth(1).as_deref() == Some(cold::ROLE) {
        return cold::play_server();
    }
    if !cfg!(target_os = "linux") {
        println!("not measured: the figures of a process are read from /proc");
        return Ok(());
    }
    let backend = Backend::start()?;
    let Some(nginx) = Proxy::nginx(backend.port)? else {
        println!("not measured: there is no nginx on PATH");
        return Ok(());
    };
    let fusion = Proxy::fusion(backend.port)?;
    let mut report = Report::new();
    measure_requests(backend.port, &mut report)?;
    measure_tokens([&nginx, &fusion], &mut report)?;
    let more = IDLE_STREAMS.map(|count| {
        // Memory that one count has left would count for less in the next one.
        let (nginx, fusion) = (Proxy::nginx(backend.port)?.context("nginx")?, Proxy::fusion(backend.port)?);
        Ok::<_, anyhow::Error>((count, memory(&nginx, count)?, memory(&fusion, count)?))
    });
    for measured in more {
        let (count, nginx, fusion) = measured?;
        let each = |bytes: f64| bytes / count as f64 / 1000.0;
        report.compare(
            &format!("memory of each of {count} idle streams, kB"),
            each(fusion),
            each(nginx),
            "25 kB",
        );
    }
    let [one, other] = [left(&nginx, &backend)?, left(&fusion, &backend)?];
    report.compare("client gone: connection to the server closed after, µs", other, one, "5 ms");
    let slowest = micros(slowest_health(&fusion)?) / 1000.0;
    report.alone("`/health` while 30 large streams are dropped, slowest, ms", slowest, "50 ms");
    drop((nginx, fusion));
    let mut starts = [vec![], vec![]];
    for _ in 0..20 {
        starts[0].push(Proxy::nginx(backend.port)?.context("nginx")?.start_up);
        starts[1].push(Proxy::fusion(backend.port)?.start_up);
    }
    let [one, other] = starts.map(|times| median(times) / 1000.0);
    report.compare("start-up, ms", other, one, "10 ms");
    let (through_gateway, run) = cold::measure()?;
    report.cold(through_gateway, run);
    report.publish()
}

/// Measures each round with processes of its own: what one costs also depends on where its memory happens to be.
fn measure_requests(backend: u16, report: &mut Report) -> Result<()> {
    let each = REQUESTS / ROUNDS;
    let (mut times, mut cpu, mut crowded) = ([vec![], vec![]], [vec![], vec![]], [vec![], vec![]]);
    for _ in 0..ROUNDS {
        let both = [Proxy::nginx(backend)?.context("nginx")?, Proxy::fusion(backend)?];
        // What a start leaves to do is no part of a request.
        std::thread::sleep(Duration::from_secs(1));
        for (index, proxy) in both.iter().enumerate() {
            // The first requests find the service and warm the caches.
            requests(proxy, 200)?;
            let before = proxy.cpu()?;
            times[index].push(Duration::from_secs_f64(median(requests(proxy, each)?) / 1e6));
            let between = proxy.cpu()?;
            cpu[index].push(between.saturating_sub(before) / u32::try_from(each)?);
            crowd(proxy, each)?;
            crowded[index].push(proxy.cpu()?.saturating_sub(between) / u32::try_from(each)?);
        }
    }
    for (what, figures, aim) in [
        ("one token, median, µs", times, "1.3 times"),
        ("processor time of a request, 1 connection, µs", cpu, "1.4 times"),
        ("processor time of a request, 16 connections, µs", crowded, "1.4 times"),
    ] {
        let [one, other] = figures.map(median);
        report.compare(what, other, one, aim);
    }
    Ok(())
}

fn measure_tokens(both: [&Proxy; 2], report: &mut Report) -> Result<()> {
    let mut cpu = [Duration::ZERO; 2];
    for _ in 0..ROUNDS {
        for (index, proxy) in both.into_iter().enumerate() {
            let before = proxy.cpu()?;
            let answer = Client::connect(proxy.port)?.exchange(&client::stream(TOKENS))?;
            ensure!(answer > TOKENS, "the stream is short: {answer} bytes");
            cpu[index] += proxy.cpu()?.saturating_sub(before);
        }
    }
    let [one, other] = cpu.map(|cpu| micros(cpu) / (TOKENS * ROUNDS) as f64);
    report.compare("processor time of a token at full speed, µs", other, one, "1.4 times");
    Ok(())
}

/// Returns how much memory that many idle streams add, in bytes.
fn memory(proxy: &Proxy, count: usize) -> Result<f64> {
    requests(proxy, 200)?;
    let before = proxy.memory()?;
    let mut streams = Vec::new();
    for _ in 0..count {
        let mut stream = Client::connect(proxy.port)?;
        stream.send(&client::idle())?;
        stream.read_some()?;
        streams.push(stream);
    }
    Ok(proxy.memory()?.saturating_sub(before) as f64)
}

/// Returns how long after its client the connection to the server goes, in microseconds.
fn left(proxy: &Proxy, backend: &Backend) -> Result<f64> {
    let mut times = Vec::new();
    for _ in 0..GONE {
        let mut stream = Client::connect(proxy.port)?;
        stream.send(&client::idle())?;
        stream.read_some()?;
        backend.forget_ends();
        let left = Instant::now();
        drop(stream);
        let end = backend.next_end().context("the server does not notice")?;
        times.push(end.saturating_duration_since(left));
    }
    Ok(median(times))
}

/// Drops large streams one after the other, asks whether the gateway is well meanwhile, and returns the longest time
/// until an answer.
fn slowest_health(proxy: &Proxy) -> Result<Duration> {
    let streams = (0..LARGE_STREAMS).map(|_| {
        let mut stream = Client::connect(proxy.port)?;
        stream.send(&client::stream(TOKENS * 100))?;
        stream.read_some()?;
        Ok(stream)
    });
    let streams: Vec<Client> = streams.collect::<Result<_>>()?;
    let mut client = Client::connect(proxy.port)?;
    let mut slowest = Duration::ZERO;
    for stream in streams {
        drop(stream);
        let begin = Instant::now();
        client.exchange("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
        slowest = slowest.max(begin.elapsed());
    }
    Ok(slowest)
}

/// Sends requests for one token over one connection, and returns how long each took.
fn requests(proxy: &Proxy, count: usize) -> Result<Vec<Duration>> {
    let mut client = Client::connect(proxy.port)?;
    let request = client::one_token();
    (0..count)
        .map(|_| {
            let begin = Instant::now();
            client.exchange(&request)?;
            Ok(begin.elapsed())
        })
        .collect()
}

/// Sends requests over 16 connections at once.
fn crowd(proxy: &Proxy, count: usize) -> Result<()> {
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..16).map(|_| scope.spawn(|| requests(proxy, count / 16))).collect();
        clients
            .into_iter()
            .try_for_each(|client| client.join().map_err(|_| anyhow::anyhow!("a client failed"))?.map(|_| ()))
    })
}

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

/// Returns the median in microseconds.
fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times.get(times.len() / 2).map_or(f64::NAN, |time| micros(*time))
}
