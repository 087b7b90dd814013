//! A fleet: fifty services of any program, of which fusion starts twenty at once and reports on all.

use std::net::{SocketAddr, TcpListener};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::crowd::Crowd;
use crate::measure::{cost, in_turn, median, memory};
use crate::programs::Programs;
use crate::report::Report;
use crate::row::Unit;

const SERVICES: usize = 50;
const RUNNING: usize = 20;

/// Starts twenty services at once, then reports on fifty beside a thousand other processes.
pub(crate) fn fleet(programs: &Programs, report: &mut Report, rounds: usize, starts: usize) -> Result<()> {
    let addresses = configure(programs, SERVICES, RUNNING)?;
    let up = ["up", "--tag", "on"];
    let mut after = Vec::new();
    for _ in 0..starts {
        cost(&mut programs.fusion(up))?;
        let returned = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64();
        after.push((returned - slowest(programs)?) * 1e3);
        cost(&mut programs.fusion(["down"]))?;
    }
    let label = "up of 20 services, after the slowest is ready";
    report.alone(label, Unit::Milliseconds, median(after)?, "at most 100 ms");
    cost(&mut programs.fusion(up))?;
    let requests =
        || programs.floor("requests", addresses.iter().take(RUNNING).map(|at| format!("{at}/health")));
    let crowd = Crowd::of_processes(1000)?;
    let costs = in_turn(rounds, &mut [programs.fusion(["ps"]), requests()])?;
    drop(crowd);
    let other = "the 20 requests alone";
    report.times(
        "ps of 50 services beside 1,000 processes",
        &costs[0],
        other,
        &costs[1],
        "at most 3 ms more",
    );
    let (fusion, alone) = (memory(&programs.fusion(["ps"]))?, memory(&requests())?);
    report.values("memory of ps of 50 services", Unit::Megabytes, fusion, other, alone, "under 6 MB");
    cost(&mut programs.fusion(["down"]))?;
    Ok(())
}

/// Configures so many services, the first `running` of them with the tag `on`; returns their addresses.
pub(crate) fn configure(programs: &Programs, services: usize, running: usize) -> Result<Vec<SocketAddr>> {
    let listeners: Result<Vec<TcpListener>, _> =
        (0..services).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let addresses: Result<Vec<SocketAddr>, _> = listeners?.iter().map(TcpListener::local_addr).collect();
    let addresses = addresses?;
    programs.configure(&tables(programs, &addresses, running)?)?;
    Ok(addresses)
}

fn tables(programs: &Programs, addresses: &[SocketAddr], running: usize) -> Result<String> {
    let program = std::env::current_exe()?;
    let stamp = programs.path("{name}-ready");
    let mut text = format!(
        "[templates.stub]\ncommand = ['{}', '--serve', '127.0.0.1:{{port}}', '0', '{}']\n\
         health_endpoint = '/health'\n",
        program.display(),
        stamp.display()
    );
    let instances = addresses.iter().enumerate().map(|(number, address)| {
        let tags = if number < running { "['on']" } else { "[]" };
        let port = address.port();
        format!("[instances.stub{number}]\ntemplate = 'stub'\nport = {port}\ntags = {tags}\n")
    });
    text.extend(instances);
    Ok(text)
}

/// Returns when the last one began to serve, in seconds since 1970.
fn slowest(programs: &Programs) -> Result<f64> {
    let ready = |number: usize| -> Result<f64> {
        let stamp = std::fs::read_to_string(programs.path(&format!("stub{number}-ready")));
        Ok(stamp.context("a service did not start")?.parse::<f64>()? / 1e9)
    };
    (0..RUNNING).try_fold(0.0, |latest, number| Ok(f64::max(latest, ready(number)?)))
}
