//! Measures the gateway beside nginx in front of the same server, in the same run: `cargo bench --bench gateway`.
//!
//! Both keep their connections to the server. No duration is asserted: the aims stand beside the ratios.

#![allow(clippy::print_stdout, clippy::cast_precision_loss, unreachable_pub)] // The figures are the result.

mod backend;
mod client;
mod proxies;

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};

use backend::Backend;
use client::Client;
use proxies::Proxy;

const REQUESTS: usize = 4000;
const ROUNDS: usize = 8;
const TOKENS: usize = 20_000;
const IDLE_STREAMS: usize = 1000;
const GONE: usize = 100;
const LARGE_STREAMS: usize = 30;

fn main() -> Result<()> {
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
    println!("{:<34} {:>12} {:>12} {:>8} {:>8}", "", "nginx", "fusion", "ratio", "aim");
    let both = [&nginx, &fusion];
    // The first requests find the service and warm the caches.
    for proxy in both {
        requests(proxy, 200)?;
    }
    let (mut times, mut cpu) = ([vec![], vec![]], [Duration::ZERO; 2]);
    for _ in 0..ROUNDS {
        for (index, proxy) in both.into_iter().enumerate() {
            let before = proxy.cpu()?;
            times[index].extend(requests(proxy, REQUESTS / ROUNDS)?);
            cpu[index] += proxy.cpu()?.saturating_sub(before);
        }
    }
    let median = |times: &mut Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let [one, other] = &mut times;
    row("one token, p50 (us)", micros(median(one)), micros(median(other)), "1.3");
    let per = |cpu: Duration, count: usize| micros(cpu) / count as f64;
    row("CPU a request (us)", per(cpu[0], REQUESTS), per(cpu[1], REQUESTS), "1.4");

    let mut cpu = [Duration::ZERO; 2];
    for _ in 0..ROUNDS {
        for (index, proxy) in both.into_iter().enumerate() {
            let before = proxy.cpu()?;
            let answer = Client::connect(proxy.port)?.exchange(&client::stream(TOKENS))?;
            ensure!(answer > TOKENS, "the stream is short: {answer} bytes");
            cpu[index] += proxy.cpu()?.saturating_sub(before);
        }
    }
    row("CPU a token (us)", per(cpu[0], TOKENS * ROUNDS), per(cpu[1], TOKENS * ROUNDS), "1.4");

    let mut memory = [0.0; 2];
    for (index, proxy) in both.into_iter().enumerate() {
        let before = proxy.memory()?;
        let mut streams = Vec::new();
        for _ in 0..IDLE_STREAMS {
            let mut stream = Client::connect(proxy.port)?;
            stream.send(&client::idle())?;
            stream.read_some()?;
            streams.push(stream);
        }
        memory[index] = proxy.memory()?.saturating_sub(before) as f64 / IDLE_STREAMS as f64 / 1024.0;
    }
    row("memory of an idle stream (KiB)", memory[0], memory[1], "25 KiB");

    for proxy in both {
        let mut times = Vec::new();
        for _ in 0..GONE {
            let mut stream = Client::connect(proxy.port)?;
            stream.send(&client::idle())?;
            stream.read_some()?;
            backend.forget_ends();
            let left = Instant::now();
            drop(stream);
            times.push(
                backend.next_end().context("the server does not notice")?.saturating_duration_since(left),
            );
        }
        println!("{:<34} {:>12.0} us", format!("client gone, {}", proxy.name), micros(median(&mut times)));
    }
    let slowest = slowest_health(&fusion)?;
    println!(
        "{:<34} {:>12} {:>12.1} {:>17}",
        "health as streams drop (ms)",
        "",
        micros(slowest) / 1000.0,
        "50 ms"
    );
    let mut starts = [vec![], vec![]];
    drop((nginx, fusion));
    for _ in 0..20 {
        starts[0].push(Proxy::nginx(backend.port)?.context("nginx")?.start_up);
        starts[1].push(Proxy::fusion(backend.port)?.start_up);
    }
    let [one, other] = &mut starts;
    row("start-up (ms)", micros(median(one)) / 1000.0, micros(median(other)) / 1000.0, "10 ms");
    Ok(())
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

fn micros(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e6
}

fn row(what: &str, nginx: f64, fusion: f64, aim: &str) {
    println!("{what:<34} {nginx:>12.1} {fusion:>12.1} {:>8.2} {aim:>8}", fusion / nginx);
}
