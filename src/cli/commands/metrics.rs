//! `fusion metrics`.

use crate::app::metrics::{MachineMetrics, MetricsView, ServiceMetrics};
use crate::app::{App, Selection};
use crate::cli::commands::several::named;
use crate::cli::context::Context;
use crate::cli::error::Failure;
use crate::cli::exit::Exit;
use crate::cli::table::{TextTable, unknown};
use crate::cli::units::bytes;
use crate::core::machine::CpuMeter;

/// Show what running services and the machine use
///
/// Shows CPU, memory, threads and open files of each service with all processes it started, and CPU, load, memory and
/// GPU memory of the machine. The CPU of a service is the average since its start, in percent of one processor; that
/// of the machine is measured for a moment. With --json, a running gateway adds what it knows of the requests to each
/// service.
#[derive(Debug, clap::Args)]
pub struct MetricsArgs {
    /// Only this service (exit code 3 if it is not running)
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(context: &Context, app: &App, args: &MetricsArgs) -> Result<Exit, Failure> {
    let mut meter = CpuMeter::start();
    let names = args.name.iter().cloned().collect();
    let services = app.select(&Selection { names, ..Selection::default() })?;
    let (metrics, failed) = app.metrics(&services, &mut meter, &context.cancel);
    let mut exit = Exit::Done;
    for (service, error) in failed {
        exit = exit.or(context.ui.failure(&named(service, &error.into())));
    }
    if let (Some(name), [], Exit::Done) = (&args.name, &metrics.services[..], exit) {
        return Err(Failure::new(Exit::NotRunning, format!("{name} is not running"))
            .hint(format!("start it: fusion {name} up")));
    }
    if args.json {
        context.ui.json(&metrics)?;
    } else {
        context.ui.result(&page(&metrics, context.ui.screen_width()))?;
    }
    Ok(exit)
}

fn page(metrics: &MetricsView, screen: Option<usize>) -> String {
    let machine = machine(&metrics.machine).text(screen);
    if metrics.services.is_empty() {
        machine
    } else {
        services(&metrics.services).text(screen) + "\n" + &machine
    }
}

fn services(services: &[ServiceMetrics]) -> TextTable {
    let mut table = TextTable::new(&["SERVICE", "PID", "CPU", "MEMORY", "THREADS", "OPEN FILES"]);
    for service in services {
        let number = |number: Option<u64>| number.map_or_else(unknown, |number| number.to_string());
        table.row(&[
            service.name.to_string(),
            service.pid.map_or_else(unknown, |pid| pid.to_string()),
            service.cpu_percent.map_or_else(unknown, |percent| format!("{percent:.0}%")),
            service.memory_bytes.map_or_else(unknown, bytes),
            number(service.threads),
            number(service.open_files),
        ]);
    }
    table
}

fn machine(machine: &MachineMetrics) -> TextTable {
    let used = |used: Option<u64>, total: Option<u64>| match (used, total) {
        (Some(used), Some(total)) => format!("{} of {}", bytes(used), bytes(total)),
        (None, Some(total)) => bytes(total),
        (_, None) => unknown(),
    };
    let memory_used = machine.memory_bytes.zip(machine.memory_available_bytes);
    let memory_used = memory_used.map(|(total, available)| total.saturating_sub(available));
    let mut table = TextTable::new(&["MACHINE CPU", "LOAD", "MEMORY", "GPU MEMORY"]);
    table.row(&[
        machine.cpu_percent.map_or_else(unknown, |percent| format!("{percent:.0}%")),
        machine.load_averages.map_or_else(unknown, |loads| loads.map(|load| format!("{load:.2}")).join(" ")),
        used(memory_used, machine.memory_bytes),
        used(machine.gpu_memory_used_bytes, machine.gpu_memory_bytes),
    ]);
    table
}
