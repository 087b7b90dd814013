//! The metrics of all services in the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;
use std::sync::Arc;

use super::meter::{Counters, FIRST_BYTE_BOUNDS, Outcome};

/// The metrics of one service.
#[derive(Debug)]
pub(super) struct Sample {
    pub(super) service: Arc<str>,
    pub(super) counters: Counters,
    pub(super) in_flight: usize,
    /// Whether it runs with a model in memory, or is a program that runs.
    pub(super) is_loaded: bool,
    pub(super) memory_bytes: Option<u64>,
}

/// Returns the text.
pub(super) fn text(samples: &[Sample]) -> String {
    let mut text = String::new();
    family(
        &mut text,
        "fusion_requests_total",
        "counter",
        "Requests by service and outcome.",
        samples,
        &|sample| {
            let count =
                |outcome: Outcome| sample.counters.outcomes.get(&outcome).copied().unwrap_or_default();
            Outcome::ALL.map(|outcome| MetricLine::with("outcome", outcome.name(), count(outcome))).into()
        },
    );
    first_bytes(&mut text, samples);
    family(&mut text, "fusion_in_flight", "gauge", "Requests that are being answered.", samples, &|sample| {
        vec![MetricLine::bare(&sample.in_flight)]
    });
    family(
        &mut text,
        "fusion_loaded",
        "gauge",
        "Whether the service has a model in memory.",
        samples,
        &|sample| vec![MetricLine::bare(&u8::from(sample.is_loaded))],
    );
    let help = "Memory of the whole process tree of the service.";
    family(&mut text, "fusion_memory_bytes", "gauge", help, samples, &|sample| {
        sample.memory_bytes.as_ref().map(MetricLine::bare).into_iter().collect()
    });
    family(&mut text, "fusion_starts_total", "counter", "Starts by requests.", samples, &|sample| {
        vec![MetricLine::bare(&sample.counters.starts)]
    });
    family(
        &mut text,
        "fusion_idle_stops_total",
        "counter",
        "Stops after the idle timeout.",
        samples,
        &|sample| vec![MetricLine::bare(&sample.counters.idle_stops)],
    );
    let help = "Tokens of prompts and completions, where the server tells them.";
    family(&mut text, "fusion_tokens_total", "counter", help, samples, &|sample| {
        let Counters { prompt_tokens, completion_tokens, .. } = sample.counters;
        vec![
            MetricLine::with("kind", "prompt", prompt_tokens),
            MetricLine::with("kind", "completion", completion_tokens),
        ]
    });
    text
}

/// A value with at most one label beside the service.
struct MetricLine {
    label: Option<(&'static str, &'static str)>,
    value: String,
}

impl MetricLine {
    fn bare(value: &impl ToString) -> Self {
        Self { label: None, value: value.to_string() }
    }

    fn with(name: &'static str, label: &'static str, value: u64) -> Self {
        Self { label: Some((name, label)), ..Self::bare(&value) }
    }
}

fn head(text: &mut String, name: &str, kind: &str, help: &str) {
    // Writing to a string does not fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
}

/// Appends a metric of every service.
fn family(
    text: &mut String,
    name: &str,
    kind: &str,
    help: &str,
    samples: &[Sample],
    lines: &dyn Fn(&Sample) -> Vec<MetricLine>,
) {
    head(text, name, kind, help);
    for sample in samples {
        for MetricLine { label, value } in lines(sample) {
            let label = label.map(|(name, value)| format!(",{name}=\"{value}\"")).unwrap_or_default();
            let _ = writeln!(text, "{name}{{service=\"{}\"{label}}} {value}", escaped(&sample.service));
        }
    }
}

fn first_bytes(text: &mut String, samples: &[Sample]) {
    let name = "fusion_first_byte_seconds";
    head(text, name, "histogram", "Time from a request to the first byte of the service's response.");
    for sample in samples {
        let service = escaped(&sample.service);
        let mut total = 0;
        let bounds = FIRST_BYTE_BOUNDS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(sample.counters.first_bytes) {
            total += count;
            let _ = writeln!(text, "{name}_bucket{{service=\"{service}\",le=\"{bound}\"}} {total}");
        }
        let sum = sample.counters.first_byte_seconds;
        let _ = writeln!(text, "{name}_sum{{service=\"{service}\"}} {sum}");
        let _ = writeln!(text, "{name}_count{{service=\"{service}\"}} {total}");
    }
}

/// Returns the value of a label. Names of services need no escape; this holds for any.
fn escaped(label: &str) -> String {
    label.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Sample {
        let mut counters = Counters::default();
        counters.outcomes.insert(Outcome::Ok, 3);
        counters.outcomes.insert(Outcome::Cut, 1);
        counters.first_bytes[0] = 1;
        counters.first_bytes[FIRST_BYTE_BOUNDS.len()] = 2;
        counters.first_byte_seconds = 1300.5;
        (counters.starts, counters.prompt_tokens, counters.completion_tokens) = (1, 11, 2);
        let memory_bytes = Some(5_000_000_000);
        Sample { service: "mlx".into(), counters, in_flight: 2, is_loaded: true, memory_bytes }
    }

    #[test]
    fn metrics_are_in_the_text_format() {
        insta::assert_snapshot!(text(&[sample()]), @r#"
        # HELP fusion_requests_total Requests by service and outcome.
        # TYPE fusion_requests_total counter
        fusion_requests_total{service="mlx",outcome="ok"} 3
        fusion_requests_total{service="mlx",outcome="client_gone"} 0
        fusion_requests_total{service="mlx",outcome="cut"} 1
        fusion_requests_total{service="mlx",outcome="refused"} 0
        fusion_requests_total{service="mlx",outcome="failed"} 0
        # HELP fusion_first_byte_seconds Time from a request to the first byte of the service's response.
        # TYPE fusion_first_byte_seconds histogram
        fusion_first_byte_seconds_bucket{service="mlx",le="0.01"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="0.05"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="0.1"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="0.5"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="1"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="5"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="30"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="120"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="600"} 1
        fusion_first_byte_seconds_bucket{service="mlx",le="+Inf"} 3
        fusion_first_byte_seconds_sum{service="mlx"} 1300.5
        fusion_first_byte_seconds_count{service="mlx"} 3
        # HELP fusion_in_flight Requests that are being answered.
        # TYPE fusion_in_flight gauge
        fusion_in_flight{service="mlx"} 2
        # HELP fusion_loaded Whether the service has a model in memory.
        # TYPE fusion_loaded gauge
        fusion_loaded{service="mlx"} 1
        # HELP fusion_memory_bytes Memory of the whole process tree of the service.
        # TYPE fusion_memory_bytes gauge
        fusion_memory_bytes{service="mlx"} 5000000000
        # HELP fusion_starts_total Starts by requests.
        # TYPE fusion_starts_total counter
        fusion_starts_total{service="mlx"} 1
        # HELP fusion_idle_stops_total Stops after the idle timeout.
        # TYPE fusion_idle_stops_total counter
        fusion_idle_stops_total{service="mlx"} 0
        # HELP fusion_tokens_total Tokens of prompts and completions, where the server tells them.
        # TYPE fusion_tokens_total counter
        fusion_tokens_total{service="mlx",kind="prompt"} 11
        fusion_tokens_total{service="mlx",kind="completion"} 2
        "#);
    }

    #[test]
    fn unknown_memory_has_no_value() {
        let samples = [Sample { memory_bytes: None, ..sample() }];
        assert!(!text(&samples).contains("fusion_memory_bytes{"));
    }

    #[test]
    fn labels_are_escaped() {
        assert_eq!(escaped("a\"\\\n"), r#"a\"\\\n"#);
    }
}
